"""Bodies in the strict form take a faster path with the same result as the general one: the same command, ids and hash,
or the same error."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from models.commands import payloads
from models.commands.payloads import Submission, parse_envelope, parse_flat
from models.commands.strict_payloads import read_envelope, read_flat
from models.errors import Rejected
from tests.support.project import IS_LONG, ROOT

Parse = Callable[[bytes], Submission]

EXAMPLES = [
    path.read_bytes() for path in sorted((ROOT / "examples").glob("*.json")) if path.name != "error_examples.json"
]
CHUNK = {
    "content": "A: hello\nB: see: you",
    "participants": ["A", "B\u0308"],
    "extracted_items": {"ideas": [1, {"a:": 2}]},
}
COMMANDS: list[tuple[str, dict[str, Any]]] = [
    ("create_session", {"title": "Walk: home"}),
    ("list_sessions", {}),
    ("conversation_chunk", CHUNK),
    ("append_conversation", CHUNK | {"metadata": {}, "chunk_id": "c:1"}),
    ("store_memory", {"content": {"text": "e\u0301: 1.50", "n": [1.5, 1e5, -0.0, 2**60]}, "type": "idea"}),
    ("store_memory", {"content": None, "key": "e\u0301", "tags": ["b", "a"], "if_revision": 0}),
    ("get_task", {"task_id": "t", "wait": 5, "max_characters": 20_000}),
    ("get_task", {"task_id": "t", "wait": 0}),
    ("search", {"q": "x", "in": ["memories"], "since": "7d"}),
    ("add_artifact", {"name": "n", "content": "x", "metadata": {"relates_to_task": "t1"}}),
    ("add_artifact", {"name": "n", "content": {"b": 1, "a": 2}, "task_id": "t:2", "metadata": {"x": 1}}),
    ("delegate_task", {"description": "Do it", "input_data": {"url": "http://x"}, "priority": 0}),
    ("query_memories", {"filter": {"type": "idea"}}),
    (
        "batch",
        {
            "commands": [
                {"command": "create_session", "data": {"title": "T"}},
                {"command": "append_conversation", "data": CHUNK},
                {"command": "pause_session"},
                {"command": "store_memory", "data": {"content": "idea: b", "type": "idea"}},
            ],
            "mode": "partial",
        },
    ),
]
ENVELOPES: list[dict[str, Any]] = [
    {"type": "collaborative_session_command", "command": name, "session_id": "walk:1", "data": data, "id": "d:1"}
    for name, data in COMMANDS
] + [{"command": name, "data": data, "sync": True} for name, data in COMMANDS]

STRICT = 14
"""The minimum number of the envelopes above in the strict form."""


def outcome(parse: Parse, body: bytes) -> object:
    """Return everything that a body results in."""
    try:
        found = parse(body)
    except Rejected as error:
        return error.body()
    command = type(found.command), msgspec.json.encode(found.command)
    return command, found.session_id, found.delivery_id, found.sync, found.is_flat, found.names_session, found.hash


def by_the_longer_way(monkeypatch: pytest.MonkeyPatch, parse: Parse, body: bytes) -> object:
    with monkeypatch.context() as patch:
        patch.setattr(payloads, "read_envelope", lambda _: None)
        patch.setattr(payloads, "read_flat", lambda *_: None)
        return outcome(parse, body)


@pytest.mark.parametrize("body", EXAMPLES)
def test_both_paths_give_the_same_result_for_the_examples(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    assert outcome(parse_envelope, body) == by_the_longer_way(monkeypatch, parse_envelope, body)


def test_most_bodies_are_in_the_strict_form() -> None:
    assert sum(read_envelope(body) is not None for body in EXAMPLES) >= len(EXAMPLES) - 1
    bodies = [msgspec.json.encode(envelope) for envelope in ENVELOPES]
    assert sum(read_envelope(body) is not None for body in bodies) >= STRICT
    assert read_flat("list_sessions", b"{}")


COUNT = 2_500 if IS_LONG else 1_000


def test_both_paths_give_the_same_result_for_almost_strict_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(1)
    read = 0
    for _ in range(COUNT):
        envelope = chance.choice(ENVELOPES)
        body = spoil(chance, json.dumps(envelope, ensure_ascii=chance.random() < 0.5))
        for parse in (parse_envelope, lambda body: parse_flat(envelope["command"], body)):  # noqa: B023
            content = body if parse is parse_envelope else spoil(chance, json.dumps(flat(envelope)))
            assert outcome(parse, content) == by_the_longer_way(monkeypatch, parse, content), content
            read += read_envelope(content) is not None
    assert read > COUNT // 13


def flat(envelope: dict[str, Any]) -> dict[str, Any]:
    outer = {name: envelope[name] for name in ("session_id", "id") if name in envelope}
    return {**envelope["data"], **outer}


PIECES = [
    *('"', ",", ":", "{", "}", "[", "]", " ", "\\", "null", "true", "0", "1e400", "-", "\u00e9", '"x":1,', '"id":"d",'),
    *(
        '"session_id":"walk:1",',
        '"session_id":"walk:1",',
        '"content":"x",',
        '"data":{},',
        '"command":"search",',
        "\\u003a",
    ),
    *("\\ud800", "\\u0000", "9" * 20, "9" * 101, "[" * 101, '"a\\u003a":1,', '"key":null,', '"{}"', "\\u00e9"),
]


def spoil(chance: random.Random, text: str) -> bytes:
    """Return a text with a small random insertion, deletion or repetition, or unchanged."""
    for _ in range(chance.choice((0, 1, 1, 2))):
        place = chance.randrange(len(text) + 1)
        end = min(len(text), place + chance.randrange(12))
        match chance.randrange(4):
            case 0:
                text = text[:place] + chance.choice(PIECES) + text[place:]
            case 1:
                text = text[:place] + text[end:]
            case 2:
                comma = text.find('"', place)
                text = text[:comma] + chance.choice(PIECES) + text[comma:] if comma >= 0 else text
            case 3:
                text = text[:end] + text[place:end] + text[end:]
    body = text.encode("utf-8", "surrogatepass")
    return body if chance.random() < 0.95 else body.replace(b"e", b"\xff", 1)
