"""The effects of commands in each store: repeats, conflicts, states, revisions, batches, deletes, and messages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import Conflict, Forbidden, Invalid, NotFound, NotJson, Rejected, RelayError
from sessions.backend import Backend
from sessions.commands.inline_execution import parse_direct
from tests.support.stores.sending import SESSION, items, refusal, send

CREATING = (
    ("conversation_chunk", {"chunk_id": "c", "content": "one", "extracted_items": {"ideas": ["x"]}}),
    ("store_memory", {"key": "k", "type": "idea", "content": {"a": 1, "b": 2}, "tags": ["t"]}),
    ("delegate_task", {"task_id": "t", "description": "do it", "input_data": {"x": 1}}),
    ("add_artifact", {"artifact_id": "a", "name": "n", "content": ["x"], "metadata": {"m": 1}}),
)
IDS = ("chunk_id", "key", "task_id", "artifact_id")


@pytest.fixture
def walk(backend: Backend) -> Backend:
    """An active session."""
    send(backend, "create_session", title="Morning walk", participants=["Ada"], context="On foot")
    return backend


def summary(backend: Backend) -> dict[str, Any]:
    return send(backend, "get_session_summary")


@pytest.mark.parametrize(("command", "data"), CREATING)
@pytest.mark.parametrize("has_id", [True, False])
def test_a_repeated_command_has_no_second_effect(
    walk: Backend, command: str, data: dict[str, Any], has_id: bool
) -> None:
    data = {name: value for name, value in data.items() if has_id or name not in IDS}
    first = send(walk, command, **data)
    before = summary(walk)
    second = send(walk, command, **data)
    assert (first.pop("created"), second.pop("created")) == (True, False)
    assert first == second
    assert summary(walk) == before


@pytest.mark.parametrize(
    ("command", "data", "other", "code"),
    [
        (*CREATING[0], {"content": "two"}, "chunk_exists"),
        (*CREATING[2], {"description": "do that"}, "task_exists"),
    ],
)
def test_other_content_under_an_id_is_a_conflict(
    walk: Backend, command: str, data: dict[str, Any], other: dict[str, Any], code: str
) -> None:
    send(walk, command, **data)
    error = refusal(walk, command, **data | other)
    assert isinstance(error, Conflict)
    assert error.code == code
    assert error.data


@pytest.mark.parametrize(("command", "data"), CREATING)
def test_a_delivery_id_takes_effect_once(walk: Backend, command: str, data: dict[str, Any]) -> None:
    data = {name: value for name, value in data.items() if name not in IDS}
    if command == "delegate_task":
        data["allow_duplicate"] = True
    answers = [walk.send(command, data, session_id=SESSION, delivery_id="d1") for _ in range(2)]
    assert answers[0]["data"] == answers[1]["data"]
    assert answers[0]["delivery_id"] == "d1"
    with pytest.raises(Conflict) as refused:
        walk.send("pause_session", {}, session_id=SESSION, delivery_id="d1")
    assert refused.value.code == "delivery_conflict"
    assert summary(walk)["status"] == "active"
    journal = walk.events(SESSION, after=None, limit=10, wait_seconds=0).items
    assert [event["event"] for event in journal] == ["create_session", command]


def test_a_refused_delivery_is_refused_again(walk: Backend) -> None:
    for _ in range(2):
        with pytest.raises(NotFound) as refused:
            walk.send("delete_memory", {"key": "k"}, session_id=SESSION, delivery_id="d1")
        assert refused.value.code == "memory_not_found"
        send(walk, "store_memory", key="k", content=1)
    assert [memory["key"] for memory in items(walk, "list_memories", SESSION)] == ["k"]


def test_a_delivery_refused_for_the_state_of_its_session_is_evaluated_again(backend: Backend) -> None:
    def try_it() -> RelayError | None:
        try:
            backend.send("store_memory", {"content": 1}, session_id=SESSION, delivery_id="d1")
        except RelayError as error:
            return error
        return None

    codes = ["session_not_found", "session_paused", "session_completed"]
    for code, command in zip(codes, ["create_session", "complete_session", "resume_session"], strict=True):
        error = try_it()
        assert error is not None
        assert error.code == code
        send(backend, command, **({"title": "Walk"} if command == "create_session" else {}))
        if command == "create_session":
            send(backend, "pause_session")
    assert [try_it(), try_it()] == [None, None]
    assert [memory["revision"] for memory in items(backend, "list_memories", SESSION)] == [1]


def test_an_invalid_command_is_refused_without_effect(backend: Backend) -> None:
    for command, data, field in (
        ("store_memry", {}, "command"),
        ("store_memory", {}, "data.content"),
        ("store_memory", {"content": 1, "kei": "k"}, "data.kei"),
        ("store_memory", {"content": "a\0b"}, None),
        ("list_sessions", {"limit": 501}, "data.limit"),
        ("list_tasks", {"since": "yesterday"}, "data.since"),
    ):
        error = refusal(backend, command, **data)
        assert isinstance(error, Invalid | NotJson)
        assert error.field == field
    assert list(backend.session_ids()) == []
    with pytest.raises(Invalid):
        backend.page("get_task", {"task_id": "t"}, session_id=SESSION)
    for data, session_id, field in (
        ({"content": 1}, "../x", "session_id"),
        ({"content": 1, "session_id": "other"}, SESSION, "data.session_id"),
        ({"content": 1}, None, "session_id"),
    ):
        with pytest.raises(Invalid) as refused:
            backend.send("store_memory", data, session_id=session_id)
        assert refused.value.field == field


def test_a_session_goes_through_its_states(walk: Backend) -> None:
    assert send(walk, "pause_session")["status"] == "paused"
    assert send(walk, "pause_session")["status"] == "paused"
    error = refusal(walk, "store_memory", content=1)
    assert (type(error), error.code) == (Conflict, "session_paused")
    assert "resume_session" in (error.hint or "")
    assert send(walk, "complete_session")["status"] == "completed"
    assert refusal(walk, "pause_session").code == "session_completed"
    assert send(walk, "resume_session")["status"] == "active"
    assert [event["status"] for event in walk.events(SESSION, after=None, limit=10, wait_seconds=0).items] == [
        *("applied", "applied", "applied", "rejected", "applied", "rejected", "applied")
    ]


def test_new_content_of_a_memory_is_a_new_revision(walk: Backend) -> None:
    for number, content in enumerate(("first", "second", "third"), start=1):
        stored = send(walk, "store_memory", key="Plan", content=content, tags=[f"t{number}"])
        assert (stored["revision"], stored["created"]) == (number, number == 1)
    error = refusal(walk, "store_memory", key="Plan", content="x", if_revision=2)
    assert (error.code, error.expected) == ("revision_conflict", "3")
    memory = send(walk, "retrieve_memory", key="Plan")["memory"]
    assert (memory["content"], memory["revision"], memory["tags"]) == ("third", 3, ["t3"])
    earlier = send(walk, "retrieve_memory", key="Plan", revision=1)["memory"]
    assert (earlier["content"], earlier["tags"]) == ("first", ["t1"])
    assert send(walk, "store_memory", key="Plan", content="third", status="done")["revision"] == 4
    assert send(walk, "retrieve_memory", key="Plan")["memory"]["status"] == "done"
    assert send(walk, "delete_memory", key="Plan")["deleted"] is True
    assert refusal(walk, "retrieve_memory", key="Plan", revision=1).code == "memory_not_found"
    assert send(walk, "store_memory", key="Plan", content="anew")["revision"] == 1
    assert refusal(walk, "retrieve_memory", key="Plan", revision=2).code == "memory_not_found"


def test_items_extracted_from_a_conversation_become_memories(walk: Backend) -> None:
    found = {"ideas": ["solar", {"z": 1}], "questions": ["Why?"], "action_items": []}
    stored = send(walk, "conversation_chunk", chunk_id="c1", content="Ada: hello", extracted_items=found)
    assert stored["extracted_items_processed"] == 3
    memories = items(walk, "query_memories", SESSION)
    assert {(memory["type"], str(memory["content"]), memory["chunk_id"]) for memory in memories} == {
        ("idea", "solar", "c1"),
        ("idea", "{'z': 1}", "c1"),
        ("question", "Why?", "c1"),
    }
    assert summary(walk)["stats"] == {
        "conversation_chunks": 1,
        "memories": 3,
        "tasks": 0,
        "artifacts": 0,
        "active_tasks": 0,
    }


def test_tasks_wait_for_dependencies_and_can_be_cancelled(walk: Backend) -> None:
    send(walk, "delegate_task", task_id="t1", description="Compare", agent_name="codex")
    second = send(walk, "delegate_task", task_id="t2", description="Write", agent_name="codex", depends_on=["t1"])
    assert (second["ahead_in_queue"], second["agents_online"]) == (1, 0)
    task = send(walk, "get_task", task_id="t2")["task"]
    assert task["blocked_by"] == [{"task_id": "t1", "status": "pending"}]
    assert refusal(walk, "delegate_task", description="x", depends_on=["t9"]).field == "data.depends_on[0]"
    cancelled = send(walk, "cancel_task", task_id="t1", reason="too dear")
    assert cancelled["status"] == "cancelled"
    task = send(walk, "get_task", task_id="t1")["task"]
    assert (task["status"], task["cancel_reason"]) == ("cancelled", "too dear")
    assert refusal(walk, "answer_task", task_id="t2", answer="x").code == "task_not_asking"
    task = send(walk, "get_task", task_id="t2")["task"]
    assert (task["status"], task["error"]) == ("failed", 'It depends on "Compare", which was cancelled.')
    assert summary(walk)["stats"]["active_tasks"] == 0
    assert refusal(walk, "delegate_task", description="x", depends_on=["t2"]).code == "dependency_failed"


def test_completing_a_session_with_open_tasks_is_refused_or_cancels_them(walk: Backend) -> None:
    for number in range(7):
        depends_on = [f"t{number - 1}"] if number > 4 else []
        send(walk, "delegate_task", task_id=f"t{number}", description=f"Do {number}", depends_on=depends_on)
    error = refusal(walk, "complete_session")
    assert (error.code, error.field) == ("open_tasks", "data.open_tasks")
    told: Any = error.data
    assert (told["count"], [task["task_id"] for task in told["open_tasks"]]) == (7, ["t0", "t1", "t2", "t3", "t4"])
    done = send(walk, "complete_session", open_tasks="cancel")
    assert (done["status"], done["cancelled_tasks"], done["stats"]["active_tasks"]) == ("completed", 7, 0)
    assert {task["status"] for task in items(walk, "list_tasks", SESSION)} == {"cancelled"}
    assert summary(walk)["stats"]["active_tasks"] == 0
    commands = [
        {"command": "resume_session"},
        {"command": "delegate_task", "data": {"task_id": "u0", "description": "More"}},
        {"command": "complete_session", "data": {"open_tasks": "cancel"}},
        {"command": "resume_session"},
        {"command": "delegate_task", "data": {"task_id": "u1", "description": "Most"}},
    ]
    send(walk, "batch", commands=commands)
    states = {task["task_id"]: task["status"] for task in items(walk, "list_tasks", SESSION)}
    assert (states["u0"], states["u1"]) == ("cancelled", "pending")


BATCH = (
    {"command": "store_memory", "data": {"key": "first", "content": 1}},
    {"command": "retrieve_memory", "data": {"key": "none"}},
    {"command": "store_memory", "data": {"key": "third", "content": 3}},
    {"command": "list_memories", "data": {}},
)


def test_a_batch_is_all_or_nothing(walk: Backend) -> None:
    error = refusal(walk, "batch", commands=list(BATCH))
    assert (error.code, error.field) == ("memory_not_found", "data.commands[1].data.key")
    assert (error.data or {})["failed_item"] == 1
    assert items(walk, "list_memories", SESSION) == []


def test_a_partial_batch_applies_its_valid_commands(walk: Backend) -> None:
    data = send(walk, "batch", mode="partial", commands=list(BATCH))
    assert (data["processed"], data["failed"]) == (3, 1)
    assert [item["status"] for item in data["results"]] == ["success", "error", "success", "success"]
    assert {memory["key"] for memory in data["results"][3]["data"]["memories"]} == {"first", "third"}
    assert {memory["key"]: memory["content"] for memory in items(walk, "list_memories", SESSION)} == {
        "first": 1,
        "third": 3,
    }


def test_a_refused_batch_creates_no_session(backend: Backend) -> None:
    commands = [
        {"command": "create_session", "data": {"title": "Never"}},
        {"command": "cancel_task", "data": {"task_id": "none"}},
    ]
    assert refusal(backend, "batch", commands=commands).code == "task_not_found"
    assert list(backend.session_ids()) == []


def test_deleting_requires_the_id_and_leaves_nothing(walk: Backend) -> None:
    for command, data in CREATING:
        send(walk, command, **data)
    assert refusal(walk, "delete_session", confirm="other").code == "not_confirmed"
    assert summary(walk)["stats"]["memories"] == 2
    assert send(walk, "delete_session", confirm=SESSION) == {"deleted": True}
    assert refusal(walk, "get_session_summary").code == "session_not_found"
    assert list(walk.session_ids()) == []
    assert items(walk, "search", q="one") == []
    for reading in (
        lambda: walk.page("read_conversation", {"limit": 1, "cursor": None, "max_characters": 500}, session_id=SESSION),
        lambda: walk.events(SESSION, after=None, limit=1, wait_seconds=0),
        lambda: list(walk.export(SESSION, format="json")),
        lambda: list(walk.export(SESSION, format="markdown")),
    ):
        with pytest.raises(NotFound):
            reading()
    anew = send(walk, "create_session", title="Anew")
    assert set(anew["stats"].values()) == {0}
    assert [event["event"] for event in walk.events(SESSION, after=None, limit=9, wait_seconds=0).items] == [
        "create_session"
    ]


def test_responses_contain_task_updates_until_they_were_shown(walk: Backend) -> None:
    send(walk, "delegate_task", task_id="t1", description="Compare")
    assert "updates" not in walk.send("get_session_summary", {}, session_id=SESSION)


@given(
    command=st.sampled_from(["store_memory", "batch", "x", ""]),
    data=st.dictionaries(st.text(max_size=9), st.none() | st.text(max_size=9), max_size=3),
    session_id=st.none() | st.text(max_size=9),
)
def test_any_other_text_gets_an_error_message_of_our_own(
    command: str, data: dict[str, Any], session_id: str | None
) -> None:
    try:
        parse_direct(command, data, session_id=session_id)
    except RelayError as error:
        assert isinstance(error, Rejected)
        assert not isinstance(error, Forbidden)
