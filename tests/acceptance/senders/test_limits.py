"""The largest webhook is stored and found by search."""

from __future__ import annotations

import itertools
import json

import pytest

from tests.support.processes.stack import Stack, envelope, new_id
from tests.support.project import IS_LONG

ALPHABETS = {
    "latin": "abcdefghijklmnopqrstuvwxyz",
    "cyrillic": "абвгдежзийклмнопрстуфхцчшщ",
    "arabic": "ابتثجحخدذرزسشصضطظعغفقكلمنه",
    "chinese": "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏",
}
LARGEST = 1_048_576 - 400
"""The maximum size of a body, without the envelope."""


SCRIPTS = list(ALPHABETS) if IS_LONG else ["latin", "chinese"]
"""Most words, and words without spaces between them in what people write."""


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_megabyte_of_distinct_words_is_stored(stack: Stack, script: str) -> None:
    session_id = new_id(script)
    stack.send("create_session", session_id, title=script)
    text = ""
    words = ("".join(letters) for letters in itertools.product(ALPHABETS[script], repeat=5))
    size = len(ALPHABETS[script][0].encode()) * 5 + 1
    text = " ".join(itertools.islice(words, LARGEST // size))
    body = json.dumps(envelope("conversation_chunk", session_id, chunk_id="c", content=text), ensure_ascii=False)
    answer = stack.client.post("/v1/webhook?wait=40", content=body.encode())
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"]["content_size"] == len(text)
    hits = stack.client.get("/v1/search", params={"q": text.split(" ")[7], "session_id": session_id}).json()["items"]
    assert [(hit["session_id"], hit["chunk_id"]) for hit in hits] == [(session_id, "c")]
    exported = stack.client.get(f"/v1/sessions/{session_id}/export?format=json").json()
    assert [chunk["content"] for chunk in exported["chunks"]] == [text]
