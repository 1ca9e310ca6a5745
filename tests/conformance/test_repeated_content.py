"""Repeats: only a command just sent by the same source is one; the same content sent later counts again. Both stores
agree."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from models.errors import Conflict
from sessions.backend import Backend
from tests.support.stores.sending import SESSION, items, memory, refusal, send


def transcript(backend: Backend) -> list[str]:
    return [
        item["content"]
        for item in backend.page("read_conversation", {"limit": 50, "max_characters": 20_000}, session_id=SESSION).items
    ]


def test_a_decision_made_again_is_reopened(walk: Backend) -> None:
    taken = send(walk, "store_memory", content="Use Postgres", type="decision")
    assert taken["created"] is True
    send(walk, "store_memory", key=taken["key"], content="Use Postgres", status="superseded")
    again = walk.send("store_memory", {"content": "Use Postgres", "type": "decision"}, session_id=SESSION)
    assert (again["data"]["outcome"], again["data"]["revision"]) == ("reopened", 3)
    assert again["message"] == "Reopened the decision, which was superseded."
    assert "status" not in memory(walk, taken["key"])
    assert memory(walk, taken["key"], revision=2)["status"] == "superseded"
    assert "status" not in send(walk, "resume_bundle")["decisions"][0]


def test_an_action_item_that_is_due_again_is_reopened(walk: Backend) -> None:
    send(walk, "store_memory", key="bins", content="Put out the bins", type="action_item", status="done")
    again = send(walk, "store_memory", key="bins", content="Put out the bins")
    assert (again["outcome"], again["status"]) == ("reopened", "open")
    assert send(walk, "store_memory", key="bins", content="Put out the bins", status="done")["outcome"] == "revised"
    assert send(walk, "store_memory", key="bins", content="Put out the bins", tags=["home"])["status"] == "done"


def test_an_action_item_found_in_a_later_conversation_is_reopened(walk: Backend) -> None:
    found = {"action_items": ["Call Ann"]}
    first = send(walk, "conversation_chunk", content="Ada: I will call Ann.", extracted_items=found)
    [key] = first["memory_keys"]
    assert "reopened" not in first
    send(walk, "store_memory", key=key, content="Call Ann", status="done")
    again = walk.send("conversation_chunk", {"content": "Ann again!", "extracted_items": found}, session_id=SESSION)
    assert again["data"]["reopened"] == [key]
    assert again["message"].endswith("1 of them reopened.")
    assert (memory(walk, key)["status"], memory(walk, key)["chunk_id"]) == ("open", again["data"]["chunk_id"])
    assert [item["key"] for item in send(walk, "resume_bundle")["action_items"]] == [key]


def test_the_second_yes_of_a_conversation_is_in_the_transcript(walk: Backend) -> None:
    said = ["Tea?", "Yes.", "With milk?", "Yes.", "Sugar?", "Yes."]
    answers = [send(walk, "conversation_chunk", content=text) for text in said]
    assert transcript(walk) == said
    assert [answer["created"] for answer in answers] == [True] * 6
    assert len({answer["chunk_id"] for answer in answers}) == 6


def test_a_command_sent_twice_in_a_row_is_a_repeat(walk: Backend) -> None:
    for command, data, listed in (
        ("conversation_chunk", {"content": "Yes."}, lambda: transcript(walk)),
        ("delegate_task", {"description": "Compare"}, lambda: items(walk, "list_tasks", SESSION)),
        ("store_memory", {"content": "Blue"}, lambda: items(walk, "list_memories", SESSION)),
        ("add_artifact", {"name": "Plan", "content": "x"}, lambda: items(walk, "list_artifacts", SESSION)),
    ):
        first, second = (walk.send(command, data, session_id=SESSION) for _ in range(2))
        assert second["delivery_id"] != first["delivery_id"]
        assert second["data"]["created"] is False
        assert {**second["data"], "created": True} == first["data"]
        send(walk, "list_memories")  # Reads do not count.
        assert walk.send(command, data, session_id=SESSION)["data"]["created"] is False
        assert len(listed()) == 1
        assert len({first["message"], second["message"]}) == 2


def test_a_batch_that_is_sent_twice_is_applied_once(walk: Backend) -> None:
    chunks = [{"command": "conversation_chunk", "data": {"content": text}} for text in ("Yes.", "No.", "Yes.")]
    first, second = (walk.send("batch", {"commands": chunks}, session_id=SESSION) for _ in range(2))
    assert second["message"].startswith(
        "Recognized as a repeat of the batch just sent and not executed again: Executed all 3"
    )
    assert [result["data"]["created"] for result in second["data"]["results"]] == [False] * 3
    assert transcript(walk) == ["Yes.", "No.", "Yes."]
    send(walk, "conversation_chunk", content="And now?")
    third = walk.send("batch", {"commands": chunks}, session_id=SESSION)
    assert [result["data"]["created"] for result in third["data"]["results"]] == [True] * 3
    assert len(transcript(walk)) == 7
    ids = [result["data"]["chunk_id"] for answer in (first, third) for result in answer["data"]["results"]]
    assert len(set(ids)) == 6


def test_the_reads_of_a_repeated_batch_are_repeated(walk: Backend) -> None:
    commands = [{"command": "store_memory", "data": {"content": "Blue"}}, {"command": "list_memories"}]
    for created in (True, False):
        stored, listed = send(walk, "batch", commands=commands)["results"]
        assert stored["data"]["created"] is created
        assert [item["content"] for item in listed["data"]["memories"]] == ["Blue"]


def test_the_same_content_under_two_ids_is_stored_twice(walk: Backend) -> None:
    for number in range(2):
        walk.send("conversation_chunk", {"content": "Yes."}, session_id=SESSION, delivery_id=f"d{number}")
        walk.send("delegate_task", {"description": "Test it"}, session_id=SESSION, delivery_id=f"t{number}")
    assert transcript(walk) == ["Yes.", "Yes."]
    assert len(items(walk, "list_tasks", SESSION)) == 2


TASK: dict[str, Any] = {"description": "Translate", "input_data": {"file": "a"}}


@pytest.mark.parametrize(
    "other",
    [
        {"input_data": {"file": "b"}},
        {"priority": 5},
        {"not_before": "2100-01-01"},
        {"task_type": "code"},
        {"depends_on": ["t1"]},
    ],
    ids=lambda other: next(iter(other)),
)
def test_tasks_that_differ_in_any_field_are_distinct(walk: Backend, other: dict[str, Any]) -> None:
    send(walk, "delegate_task", task_id="t1", description="First")
    first, second = (send(walk, "delegate_task", **data) for data in (TASK, TASK | other))
    assert (first["created"], second["created"]) == (True, True)
    assert first["task_id"] != second["task_id"]
    assert len(items(walk, "list_tasks", SESSION)) == 3


def test_the_message_of_a_batch_counts_its_effects(walk: Backend) -> None:
    tasks = [{"command": "delegate_task", "data": {**TASK, "input_data": {"file": name}}} for name in "abc"]
    answer = walk.send("batch", {"commands": tasks}, session_id=SESSION)
    assert answer["message"] == "Executed all 3 commands."
    assert len({result["data"]["task_id"] for result in answer["data"]["results"]}) == 3
    assert len(items(walk, "list_tasks", SESSION)) == 3
    notes = [{"command": "store_memory", "data": {"content": text}} for text in ("a", "b", "a")]
    answer = walk.send("batch", {"commands": notes}, session_id=SESSION)
    assert answer["message"] == "Executed all 3 commands; 1 of them changed nothing because it was already stored."
    again = walk.send("batch", {"commands": notes}, session_id=SESSION)
    assert again["message"].startswith("Recognized as a repeat")
    assert {result["data"]["created"] for result in again["data"]["results"]} == {False}


def test_a_title_whose_session_is_completed_starts_a_new_session(backend: Backend) -> None:
    def create(**more: Any) -> dict[str, Any]:
        return backend.send("create_session", {"title": "Stand-up", **more}, session_id=None)

    first = create()
    assert create()["session_id"] == first["session_id"]
    names = [first["session_id"]]
    for _ in range(3):
        backend.send("complete_session", {}, session_id=names[-1])
        started, again = create(), create()
        assert started["data"]["created"] is True
        assert started["session_id"] == started["data"]["session_id"]
        assert started["session_id"].startswith("stand-up-")
        assert (again["session_id"], again["data"]["created"]) == (started["session_id"], False)
        names.append(started["session_id"])
    assert sorted(backend.session_ids()) == sorted(set(names))
    backend.send("store_memory", {"content": "Hello"}, session_id=names[-1])
    backend.send("complete_session", {}, session_id=names[-1])
    commands = [
        {"command": "create_session", "data": {"title": "Stand-up"}},
        {"command": "store_memory", "data": {"content": "Hello"}},
    ]
    for created in (True, False):
        answer = backend.send("batch", {"commands": commands}, session_id=None)
        assert answer["session_id"] not in names
        assert answer["data"]["results"][1]["data"]["created"] is created
    assert len(list(backend.session_ids())) == 5


@pytest.mark.parametrize("state", ["paused", "completed"])
def test_the_id_of_an_inactive_session_starts_no_new_one(walk: Backend, state: str) -> None:
    send(walk, f"{state.removesuffix('d')}_session")
    answer = walk.send("create_session", {"title": "Morning walk"}, session_id=SESSION)
    assert (answer["data"]["created"], answer["data"]["status"]) == (False, state)
    assert answer["message"] == f'"Morning walk" already exists and is {state}; send resume_session to continue it.'
    assert list(walk.session_ids()) == [SESSION]


def test_every_change_of_a_memory_is_a_revision(walk: Backend) -> None:
    send(walk, "store_memory", key="k", content=1, tags=["a"], type="note")
    changes: list[dict[str, Any]] = [
        {"content": 1, "tags": ["a", "b"]},
        {"content": 1, "status": "done"},
        {"content": 1, "type": "fact"},
        {"content": 2},
        {"content": 2, "tags": []},
    ]
    for number, change in enumerate(changes, start=2):
        assert send(walk, "store_memory", key="k", **change)["revision"] == number
    assert send(walk, "store_memory", key="k", content=2)["revision"] == 7  # Its status was done.
    told = [memory(walk, "k", revision=number) for number in range(1, 8)]
    assert [item["tags"] for item in told] == [["a"], *[["a", "b"]] * 4, [], []]
    assert [item.get("status") for item in told] == [None, None, "done", "done", "done", "done", None]
    assert [item["type"] for item in told] == ["note", "note", "note", *["fact"] * 4]
    assert [item["content"] for item in told] == [1, 1, 1, 1, 2, 2, 2]


def test_concurrent_writers_that_add_tags_keep_all_tags(walk: Backend) -> None:
    send(walk, "store_memory", key="k", content="shared")

    def add(tag: str) -> None:
        while True:
            known = memory(walk, "k")
            data = {"key": "k", "content": "shared", "tags": [*known["tags"], tag], "if_revision": known["revision"]}
            try:
                walk.send("store_memory", data, session_id=SESSION)
            except Conflict as error:
                assert error.code == "revision_conflict"
            else:
                return

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(add, [f"t{number}" for number in range(16)]))
    assert sorted(memory(walk, "k")["tags"]) == sorted(f"t{number}" for number in range(16))
    assert memory(walk, "k")["revision"] == 17


def test_a_status_is_not_overwritten_by_a_sender_that_has_not_seen_it(walk: Backend) -> None:
    send(walk, "store_memory", key="k", content="shared")
    send(walk, "store_memory", key="k", content="shared", status="done", if_revision=1)
    error = refusal(walk, "store_memory", key="k", content="shared", status="superseded", if_revision=1)
    assert (error.code, error.expected) == ("revision_conflict", "2")
    assert memory(walk, "k")["status"] == "done"
