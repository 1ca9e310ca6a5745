"""Both stores give the same responses to the same commands, except for times and cursors."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.commands.definitions import COMMANDS
from models.commands.payloads import definition_of
from models.errors import RelayError
from sessions.backend import Backend
from sessions.files.backend import FilesBackend
from sessions.postgres.backend import PostgresBackend
from tests.support.project import IS_LONG

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
LONG = "word " * 1_000 + f"{'x' * 23} " * 1_100 + "the end"  # Long words are indexed faster than many.
HOSTILE = '"\\\x01\n\t😀数 <b>[red]</b>' * 200

Step = tuple[str, str | None, dict[str, Any]]

STORY: list[Step] = [
    ("create_session", "walk", {"title": "Morning walk", "participants": ["Ada", "Jörg"], "context": "On foot"}),
    ("create_session", "walk", {"title": "Morning walk", "participants": ["Ada", "Jörg"], "context": "On foot"}),
    ("create_session", "walk", {"title": "Another"}),
    ("create_session", None, {"title": "Evening"}),
    ("store_memory", "wolk", {"content": 1}),
    ("conversation_chunk", "walk", {"content": "We talked about databases.", "chunk_id": "c1", "metadata": {"m": [1]}}),
    (
        "conversation_chunk",
        "walk",
        {"content": HOSTILE, "extracted_items": {"ideas": ["solar roof", {"z": 1e23}], "questions": ["Why?"]}},
    ),
    ("conversation_chunk", "walk", {"content": LONG, "chunk_id": "long", "format": "summary", "participants": ["Ada"]}),
    ("conversation_chunk", "walk", {"content": "other", "chunk_id": "c1"}),
    ("store_memory", "walk", {"content": {"z": 1e23, "a": -0.0}, "type": "decision", "key": "plan", "tags": ["db"]}),
    ("store_memory", "walk", {"content": "We picked Postgres as database", "key": "plan"}),
    ("store_memory", "walk", {"content": "again", "key": "plan", "if_revision": 1}),
    ("store_memory", "walk", {"content": LONG, "type": "note", "key": "long"}),
    ("store_memory", "walk", {"content": None, "key": "nothing"}),
    ("store_memory", "walk", {"content": "Call Jörg", "type": "action_item", "key": "todo", "status": "open"}),
    ("store_memory", "walk", {"content": "Call Jörg", "key": "todo", "status": "done"}),
    (
        "store_memory",
        "walk",
        {"content": {"due": "2026-03-14", "x": 1}, "key": "paint", "type": "action_item"},
    ),
    ("store_memory", "walk", {"key": "paint", "due": "2026-03-15T10:00+02:00", "tags": ["wall"]}),
    ("store_memory", "walk", {"key": "unknown", "status": "done"}),
    ("store_memory", "walk", {"key": "plan", "status": "superseded"}),
    ("delegate_task", "walk", {"task_id": "t1", "description": "Compare prices", "agent_name": "researcher"}),
    ("delegate_task", "walk", {"task_id": "t2", "description": LONG, "depends_on": ["t1"], "priority": 5}),
    ("delegate_task", "walk", {"task_id": "t3", "description": "Wait", "depends_on": ["none"]}),
    ("delegate_task", "walk", {"task_id": "t4", "description": HOSTILE, "title": "Decode it"}),
    ("delegate_task", "walk", {"task_id": "t4", "description": HOSTILE, "title": "Decode this"}),
    ("delegate_task", "walk", {"description": "Compare  PRICES", "agent_name": "researcher"}),
    ("delegate_task", "walk", {"description": "compare prices", "agent_name": "researcher", "allow_duplicate": True}),
    ("delegate_task", "evening", {"description": "unknown session"}),
    ("cancel_task", "walk", {"task_id": "t1", "reason": "too dear"}),
    ("cancel_task", "walk", {"task_id": "t1"}),
    ("answer_task", "walk", {"task_id": "t2", "answer": "yes"}),
    (
        "add_artifact",
        "walk",
        {"name": "Report", "content": "# Database\n" + LONG, "artifact_id": "a1", "task_id": "t1"},
    ),
    ("add_artifact", "walk", {"name": "main.py", "content": "print(1)", "type": "code", "format": "python"}),
    ("add_artifact", "walk", {"name": "data", "content": [1, {"b": 2}], "metadata": {"x": "y"}}),
    ("add_artifact", "walk", {"name": "none", "content": 1, "task_id": "tt1"}),
    ("add_artifact", "walk", {"name": "Report", "content": HOSTILE, "artifact_id": "a1"}),
    ("add_artifact", "walk", {"name": "Report", "content": HOSTILE, "artifact_id": "a1", "if_revision": 7}),
    ("get_session_summary", "walk", {}),
    ("get_session_summary", "wal", {}),
    ("list_sessions", None, {}),
    ("list_sessions", None, {"filter": "completed"}),
    ("retrieve_memory", "walk", {"key": "plan"}),
    ("retrieve_memory", "walk", {"key": "plan", "revision": 1}),
    ("retrieve_memory", "walk", {"key": "plan", "revision": 7}),
    ("retrieve_memory", "walk", {"key": "plam"}),
    ("retrieve_memory", "walk", {"key": "long", "max_characters": 500}),
    ("retrieve_memory", "walk", {"key": "long", "max_characters": 500, "offset": 300}),
    ("query_memories", "walk", {"tags": ["db", "x"]}),
    ("query_memories", None, {"type": "idea", "since": "1d"}),
    ("query_memories", None, {"until": "1d"}),
    ("query_memories", None, {"status": "done", "type": "action_item"}),
    ("query_memories", None, {"status": "open"}),
    ("query_memories", None, {"due_before": "2026-03-15", "timezone": "Europe/Berlin"}),
    ("query_memories", "walk", {"sort": "due", "limit": 2}),
    ("list_memories", "walk", {"max_characters": 1_000}),
    ("list_memories", "walk", {}),
    ("get_task", "walk", {"task_id": "t1"}),
    ("get_task", "walk", {"task_id": "t2", "max_characters": 700}),
    ("get_task", "walk", {"task_id": "t2", "max_characters": 700, "offset": 100}),
    ("get_task", "walk", {"task_id": "t9"}),
    ("list_tasks", "walk", {}),
    ("list_tasks", None, {"status": "pending", "agent_name": "researcher"}),
    ("list_tasks", None, {"max_characters": 800}),
    ("get_artifact", "walk", {"artifact_id": "a1"}),
    ("get_artifact", "walk", {"artifact_id": "a1", "offset": 50, "max_characters": 300}),
    ("get_artifact", "walk", {"artifact_id": "a2"}),
    ("get_artifact", "walk", {"artifact_id": "a1", "revision": 1, "max_characters": 300}),
    ("get_artifact", "walk", {"artifact_id": "a1", "revision": 3}),
    ("list_artifacts", "walk", {"artifact_id": "a1"}),
    ("list_artifacts", "walk", {"artifact_id": "a2"}),
    ("list_artifacts", None, {"artifact_id": "a1"}),
    ("list_artifacts", None, {"task_id": "t1"}),
    ("list_artifacts", "walk", {"type": "code"}),
    ("resume_bundle", "walk", {}),
    ("resume_bundle", None, {"max_characters": 3_000}),
    ("search", None, {"q": "we picked the database"}),
    ("search", None, {"q": "database", "in": ["memories"]}),
    ("search", None, {"q": "solar", "type": "idea"}),
    ("search", None, {"q": "nothing of this kind"}),
    ("search", "wolk", {"q": "database"}),
    ("read_conversation", "walk", {"chunk_id": "long", "offset": 20_000, "max_characters": 2_000}),
    ("read_conversation", "walk", {"max_characters": 300}),
    ("read_conversation", "walk", {"chunk_id": "lang"}),
    ("recent_activity", "walk", {"since": "1h", "until": "2999-01-01"}),
    ("recent_activity", None, {"max_characters": 2_000, "limit": 5}),
    ("list_sessions", None, {"q": "MORNING foot", "since": "1h"}),
    (
        "batch",
        "walk",
        {
            "commands": [
                {"command": "store_memory", "data": {"key": "b1", "content": 1}},
                {"command": "list_memories", "data": {"max_characters": 2_000}},
                {"command": "retrieve_memory", "data": {"key": "none"}},
            ]
        },
    ),
    (
        "batch",
        "walk",
        {
            "mode": "partial",
            "commands": [
                {"command": "store_memory", "data": {"key": "b2", "content": 1}},
                {"command": "store_memory", "data": {"key": "b2", "content": 2}},
                {"command": "retrieve_memory", "data": {"key": "b2", "revision": 1}},
                {"command": "retrieve_memory", "data": {"key": "none"}},
                {"command": "delete_memory", "data": {"key": "b2"}},
                {"command": "store_memory", "data": {"key": "b2", "content": 3}},
            ],
        },
    ),
    ("delete_memory", "walk", {"key": "plan"}),
    ("delete_memory", "walk", {"key": "plan"}),
    ("pause_session", "walk", {}),
    ("store_memory", "walk", {"content": "paused"}),
    ("rename_session", "walk", {"title": "x"}),
    ("resume_session", "walk", {}),
    ("delegate_task", "walk", {"task_id": "first", "description": "Bake"}),
    ("delegate_task", "walk", {"task_id": "second", "description": "Slice", "depends_on": ["first"]}),
    ("delegate_task", "walk", {"task_id": "third", "description": "Eat", "depends_on": ["second"]}),
    ("complete_session", "walk", {}),
    ("cancel_task", "walk", {"task_id": "first"}),
    ("list_tasks", "walk", {}),
    ("get_task", "walk", {"task_id": "third"}),
    ("delegate_task", "walk", {"task_id": "fourth", "description": "Sleep", "depends_on": ["third"]}),
    ("complete_session", "walk", {"open_tasks": "cancel"}),
    ("list_tasks", "walk", {}),
    ("complete_session", "walk", {}),
    ("pause_session", "walk", {}),
    ("resume_session", "walk", {}),
    ("rename_session", "walk", {"title": "A walk"}),
    ("rename_session", "walk", {"title": "A walk"}),
    ("delete_session", "walk", {"confirm": "other"}),
    ("get_session_summary", "walk", {}),
    ("delete_session", "walk", {"confirm": "walk"}),
    ("get_session_summary", "walk", {}),
    ("create_session", "walk", {"title": "Anew"}),
    ("query_memories", "walk", {}),
]


def told(backend: Backend, step: Step, number: int) -> Any:
    """Return a store's response or error, without the parts that may differ."""
    command, session_id, data = step
    try:
        answer = backend.send(command, data, session_id=session_id, delivery_id=f"d{number}")
    except RelayError as error:
        return without_times({**error.body(), "data": error.data, "status": error.status})
    return without_times(answer)


def without_times(value: Any) -> Any:
    """Replace all times and cursors by constants, and round the ranks of hits."""

    def alike(part: Any) -> Any:
        if isinstance(part, dict):
            known: dict[str, Callable[[Any], Any]] = {
                "next_cursor": bool,
                "rank": int,
                "duration_minutes": lambda _: 0,
                "snippet": lambda text: re.findall(r"\*\*[^*]+\*\*", text),
            }
            return {name: known.get(name, alike)(item) for name, item in part.items()}
        return [alike(item) for item in part] if isinstance(part, list) else part

    return alike(msgspec.json.decode(TIME.sub("<time>", msgspec.json.encode(value).decode())))


def test_a_story_of_all_commands_gets_equal_responses(in_postgres: PostgresBackend, in_files: FilesBackend) -> None:
    assert {command for command, _, _ in STORY} == set(COMMANDS)
    for number, step in enumerate(STORY):
        assert told(in_files, step, number) == told(in_postgres, step, number), step
    for backend in (in_postgres, in_files):
        for number, step in enumerate(STORY[:-4]):
            told(backend, step, 1_000 + number)
    for after in (None, "0"):
        journals = [
            backend.events("walk", after=after, limit=500, wait_seconds=0) for backend in (in_postgres, in_files)
        ]
        first, second = (
            [{name: value for name, value in item.items() if name != "cursor"} for item in journal.items]
            for journal in journals
        )
        assert without_times(first) == without_times(second)
    formats: tuple[Literal["json", "markdown"], ...] = ("json", "markdown")
    for format in formats:
        exports = [b"".join(backend.export("walk", format=format)).decode() for backend in (in_postgres, in_files)]
        documents = [TIME.sub("<time>", document) for document in exports]
        assert documents[0] == documents[1]


names = st.sampled_from(["a", "b", "c", "Ä", "数据"])
values = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40),
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=False, allow_infinity=False),
    st.none(),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5), st.booleans()
    ),
)
ids = st.sampled_from(["t1", "t2", "t3"])
DATES = [None, "", "2026-03-14", "2026-03-14T10:00Z", "soon"]
texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=30).filter(str.strip)
MADE: dict[str, dict[str, Any]] = {
    "create_session": {"title": st.sampled_from(["One", "Two"])},
    "rename_session": {"title": texts},
    "pause_session": {},
    "resume_session": {},
    "complete_session": {"open_tasks": st.sampled_from(["refuse", "cancel"])},
    "conversation_chunk": {"content": texts, "chunk_id": ids, "extracted_items": st.just({"ideas": ["x", "y"]})},
    "store_memory": {
        "content": values,
        "key": names,
        "type": st.sampled_from(["idea", "decision", "question"]),
        "tags": st.lists(names),
    },
    "update_memory": {"key": names, "status": st.sampled_from(["open", "done"]), "due": st.sampled_from(DATES)},
    "query_memories": {"sort": st.just("due"), "limit": st.integers(1, 5), "status": st.sampled_from([None, "open"])},
    "delete_memory": {"key": names},
    "delegate_task": {"task_id": ids, "description": texts, "depends_on": st.lists(ids, max_size=2)},
    "cancel_task": {"task_id": ids},
    "get_task": {"task_id": ids},
    "retrieve_memory": {"key": names},
    "list_memories": {"limit": st.integers(1, 5)},
    "list_tasks": {"limit": st.integers(1, 5)},
    "resume_bundle": {"max_characters": st.integers(200, 4_000)},
    "add_artifact": {"name": texts, "content": values, "artifact_id": ids},
}
steps = st.sampled_from(sorted(MADE)).flatmap(
    lambda command: st.tuples(
        st.just(command), st.sampled_from(["walk", "walk", "walk", "talk"]), st.fixed_dictionaries(MADE[command])
    )
)


@pytest.fixture
def both(in_postgres: PostgresBackend, in_files: FilesBackend) -> tuple[Backend, Backend]:
    return in_postgres, in_files


@settings(
    max_examples=100 if IS_LONG else 12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(story=st.lists(steps, min_size=5, max_size=25), numbers=st.lists(st.integers(0, 12), min_size=25, max_size=25))
def test_any_commands_in_any_order_get_equal_responses(
    both: tuple[Backend, Backend], story: list[Step], numbers: list[int]
) -> None:
    for backend in both:
        for session_id in list(backend.session_ids()):
            backend.send("delete_session", {"confirm": session_id}, session_id=session_id)
    story = [("create_session", "walk", {"title": "One"}), *story]
    run = secrets.token_hex(8)
    for number, step in zip([99, *numbers], story, strict=False):
        identity = f"{run}-{number}" if definition_of(step[0]).is_read is False and step[1] == "walk" else None
        answers = []
        for backend in both:
            try:
                answers.append(backend.send(step[0], step[2], session_id=step[1], delivery_id=identity))
            except RelayError as error:
                answers.append({**error.body(), "status": error.status})
        first, second = ({name: v for name, v in answer.items() if name != "delivery_id"} for answer in answers)
        assert without_times(first) == without_times(second), step
    exports = []
    for backend in both:
        documents = [b"".join(backend.export(name, format="json")).decode() for name in sorted(backend.session_ids())]
        exports.append([re.sub(r'"delivery_id":"[^"]*"', "", TIME.sub("<time>", document)) for document in documents])
    assert exports[0] == exports[1]
