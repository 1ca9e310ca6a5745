"""Chunks stored later than they were said: transcripts, bundles, lists and searches use the time of saying."""

from __future__ import annotations

from typing import Any

import pytest

from models.errors import Invalid
from sessions.backend import Backend
from tests.support.stores.sending import SESSION, items, send

MARCH = {"since": "2026-03-01", "until": "2026-03-31"}
SINCE_JUNE = {"since": "2026-06-01"}


@pytest.fixture
def walk(backend: Backend) -> Backend:
    """A conversation with two chunks that were stored late, the later one first."""
    send(backend, "create_session", title="Morning walk")
    found = {"decisions": ["Plant roses"]}
    send(backend, "conversation_chunk", chunk_id="now", content="And the roses?")
    send(backend, "conversation_chunk", chunk_id="april", content="Roses: in bloom", start_time="2026-04-02T10:00:00Z")
    send(
        backend,
        "conversation_chunk",
        chunk_id="march",
        content="Roses it is. " * 40,
        start_time="2026-03-05T10:00:00+01:00",
        end_time="2026-03-05T11:00:00+01:00",
        extracted_items=found,
    )
    return backend


def transcript(backend: Backend, *, limit: int, max_characters: int = 20_000) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = backend.page(
            "read_conversation",
            {"limit": limit, "cursor": cursor, "max_characters": max_characters},
            session_id=SESSION,
        )
        found += page.items
        if page.next_cursor is None:
            return found
        cursor = page.next_cursor


def test_a_transcript_is_in_the_order_in_which_it_was_said(walk: Backend) -> None:
    for limit in (1, 2, 9):
        told = transcript(walk, limit=limit)
        assert [item["chunk_id"] for item in told] == ["march", "april", "now"]
    assert told[0]["start_at"] == "2026-03-05T09:00:00Z"
    pieces = transcript(walk, limit=9, max_characters=400)
    assert len(pieces) > 3
    text = {name: "".join(p["content"] for p in pieces if p["chunk_id"] == name) for name in ("march", "april", "now")}
    assert text == {"march": "Roses it is. " * 40, "april": "Roses: in bloom", "now": "And the roses?"}
    with pytest.raises(Invalid) as refused:
        walk.page("read_conversation", {"limit": 1, "cursor": "WzEsMF0", "max_characters": 500}, session_id=SESSION)
    assert "from the beginning" in str(refused.value.hint)


def test_a_bundle_ends_with_the_last_chunk_and_its_time(walk: Backend) -> None:
    conversation = send(walk, "resume_bundle")["conversation"]
    assert [piece["chunk_id"] for piece in conversation] == ["march", "april", "now"]
    assert [piece.get("start_at") for piece in conversation] == ["2026-03-05T09:00:00Z", "2026-04-02T10:00:00Z", None]
    [last] = send(walk, "resume_bundle", max_characters=700)["conversation"][-1:]
    assert last["chunk_id"] == "now"


def test_a_chunk_is_found_at_its_time(walk: Backend) -> None:
    [hit] = items(walk, "search", q="roses", **{"in": ["conversations"]}, **MARCH)
    assert (hit["chunk_id"], hit["at"]) == ("march", "2026-03-05T09:00:00Z")
    later = items(walk, "search", q="roses", **{"in": ["conversations"]}, **SINCE_JUNE)
    assert [hit["chunk_id"] for hit in later] == ["now"]


def test_memories_extracted_from_a_chunk_have_its_time(walk: Backend) -> None:
    send(walk, "store_memory", content="Water them", type="decision")
    [roses] = items(walk, "query_memories", SESSION, type="decision", **MARCH)
    assert (roses["content"], roses["created_at"], roses["updated_at"]) == (
        "Plant roses",
        *["2026-03-05T09:00:00Z"] * 2,
    )
    assert [item["content"] for item in items(walk, "query_memories", SESSION, **SINCE_JUNE)] == ["Water them"]
    assert [item["content"] for item in items(walk, "list_memories", SESSION)] == ["Water them", "Plant roses"]
    [hit] = items(walk, "search", q="plant", **MARCH)
    assert hit["at"] == "2026-03-05T09:00:00Z"
    found = {"decisions": ["Plant roses"]}
    send(walk, "conversation_chunk", content="Yes, roses", start_time="2026-07-01", extracted_items=found)
    [later] = items(walk, "query_memories", SESSION, since="2026-06-01", until="2026-08-01")
    assert (later["created_at"], later["updated_at"]) == ("2026-03-05T09:00:00Z", "2026-07-01T00:00:00Z")


def test_a_markdown_export_is_in_the_order_of_saying(walk: Backend) -> None:
    document = b"".join(walk.export(SESSION, format="markdown")).decode()
    assert document.index("### 2026-03-05") < document.index("### 2026-04-02") < document.index("And the roses?")
