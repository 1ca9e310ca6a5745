"""The size of responses: one budget for a whole response, whatever it contains, in each store."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from models.errors import NotFound
from models.field_types import DEFAULT_MAX_CHARACTERS, MAX_CHARACTERS
from sessions.backend import Backend
from tests.support.stores.sending import refusal, send

ITEMS = 500
FRAME = 150
"""Characters of a batch item beyond the budget: its command, and the note that there was no room for more."""
LARGE = "What we said about the roof. " + f"{'x' * 23} " * 5_000
"""Longer than the longest response. Long words are indexed faster than many."""

READS: dict[str, dict[str, Any]] = {
    "retrieve_memory": {"key": "large"},
    "get_artifact": {"artifact_id": "large"},
    "get_task": {"task_id": "large"},
    "list_memories": {},
    "resume_bundle": {},
    "get_session_summary": {},
    "search": {"q": "roof"},
}


@pytest.fixture
def walk(backend: Backend) -> Backend:
    """A session whose texts are all long."""
    send(backend, "create_session", title="Walk", context=LARGE, participants=[f"{n:0200}" for n in range(100)])
    send(backend, "store_memory", key="large", type="decision", content=LARGE)
    send(backend, "add_artifact", artifact_id="large", name="Large", content=LARGE)
    send(backend, "delegate_task", task_id="large", description=LARGE[:100_000], input_data={"x": LARGE})
    return backend


def size_of(answer: dict[str, Any]) -> int:
    return len(msgspec.json.encode(answer))


def test_the_reads_of_a_batch_share_one_budget(walk: Backend) -> None:
    """500 of them once made a response of 178 MB, and the worker grew to 1.4 GB."""
    names = (list(READS) * ITEMS)[:ITEMS]
    commands = [{"command": name, "data": READS[name] | {"max_characters": MAX_CHARACTERS}} for name in names]
    for asked in (200, DEFAULT_MAX_CHARACTERS, MAX_CHARACTERS):
        answer = send(walk, "batch", commands=commands, max_characters=asked)
        assert size_of(answer) <= asked + ITEMS * FRAME
        results = answer["results"]
        assert [(item["command"], item["status"]) for item in results] == [(name, "success") for name in names]
        assert (answer["processed"], answer["failed"], answer["truncated"]) == (ITEMS, 0, True)
        assert results[-1]["data"] == {"truncated": True}
        assert "request them alone" in answer["read_on"]
        assert (results[0]["data"] != {"truncated": True}) == (asked > 200)


def test_the_response_to_a_small_batch_is_complete(walk: Backend) -> None:
    commands = [
        {"command": "store_memory", "data": {"key": "k", "content": "short"}},
        {"command": "retrieve_memory", "data": {"key": "k"}},
        {"command": "retrieve_memory", "data": {"key": "large"}},
    ]
    answer = send(walk, "batch", commands=commands)
    assert "truncated" not in answer
    stored, short, large = (item["data"] for item in answer["results"])
    assert (stored["created"], short["memory"]["content"]) == (True, "short")
    assert len(large["memory"]["content"]) > DEFAULT_MAX_CHARACTERS * 0.9
    assert large["memory"]["next_offset"] == len(large["memory"]["content"])


@pytest.mark.parametrize("command", ["rename_session", "create_session", "delete_memory", "conversation_chunk"])
def test_the_writes_of_a_batch_share_the_budget_and_keep_their_ids(walk: Backend, command: str) -> None:
    ideas = {"ideas": [f"idea {number}" for number in range(60)]}
    data: dict[str, Any] = {
        "rename_session": {"title": "Walk"},
        "create_session": {"title": "Another"},
        "delete_memory": {"key": "x" * 256},
        "conversation_chunk": {"content": "Ada: so be it.", "extracted_items": ideas},
    }
    answer = send(walk, "batch", commands=[{"command": command, "data": data[command]}] * ITEMS, mode="partial")
    assert size_of(answer) <= DEFAULT_MAX_CHARACTERS + ITEMS * 2 * FRAME
    assert answer["processed"] + answer["failed"] == ITEMS
    last = answer["results"][-1]
    assert last["data"]["truncated"] is True
    if command == "conversation_chunk":
        assert last["data"]["chunk_id"].startswith("chunk-")
    if last["status"] == "error":
        assert last["error"]["code"] in ("session_exists", "memory_not_found")


def test_the_refusal_of_a_batch_is_short(walk: Backend) -> None:
    error = refusal(walk, "batch", commands=[{"command": "create_session", "data": {"title": "Other"}}])
    assert size_of({"data": error.data, **error.body()}) < DEFAULT_MAX_CHARACTERS


def test_responses_to_writes_repeat_no_long_texts(walk: Backend) -> None:
    for command, data in (("rename_session", {"title": "Long walk"}), ("pause_session", {}), ("resume_session", {})):
        answer = send(walk, command, **data)
        assert size_of(answer) < 25_000, command
        assert answer["truncated"] is True
    assert send(walk, "get_session_summary", max_characters=MAX_CHARACTERS)["context"].startswith(LARGE[:10_000])


def test_the_response_to_a_write_is_bounded(walk: Backend) -> None:
    items = [f"{number:04} " + "word " * 20 for number in range(1_600)]
    kinds = ("ideas", "decisions", "questions", "action_items", "facts", "preferences", "risks", "notes")
    extracted = {kind: items[number * 200 : number * 200 + 200] for number, kind in enumerate(kinds)}
    answer = send(walk, "conversation_chunk", content="Ada: all of it.", extracted_items=extracted)
    assert answer["extracted_items_processed"] == 1_600
    assert size_of(answer) <= MAX_CHARACTERS


def test_an_error_truncates_long_ids(walk: Backend) -> None:
    error = refusal(walk, "retrieve_memory", key="\N{GRINNING FACE}" * 256)
    assert isinstance(error, NotFound)
    assert size_of(error.body()) < 4_000
