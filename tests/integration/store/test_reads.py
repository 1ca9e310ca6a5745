"""Reads from a store, and their messages."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, Engine, delete, select, update

from models.commands.definitions import (
    GetArtifact,
    GetSessionSummary,
    GetTask,
    ListArtifacts,
    ListMemories,
    ListSessions,
    ListTasks,
    QueryMemories,
    ReadCommand,
    ReadConversation,
    RetrieveMemory,
)
from models.errors import Forbidden, Invalid, NotFound
from models.tables import SESSIONS, TASKS
from sessions.postgres.reads.read_commands import last_positions, page, read, read_events, similar_sessions
from sessions.postgres.tasks.task_updates import find_updates
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import Page, ReadResult
from sessions.responses.task_updates import Listener
from tests.support.stores.rows import NOW, Rows

GLOB = "reading-*"
ENVELOPE = 2_000
"""Characters by which fixed fields may exceed the requested size."""
HOSTILE = ('"\\\n😀数' + "\x01" * 32) * 500
"""As JSON longer than the longest response, with few words, whose indexing would take most of the time."""


@pytest.fixture
def walk(connection: Connection) -> Rows:
    return Rows(connection, "reading-walk", title="Morning walk", participants=["Ada"], context="On foot")


def ask(rows: Rows, command: ReadCommand, **where: Any) -> ReadResult:
    """Read the session. Returns the response, encoded and decoded as a sender would get it."""
    given: dict[str, Any] = {"session_id": rows.session_id, "session_glob": GLOB, "now": NOW} | where
    answer = read(rows.connection, command, ReadScope(**given))
    assert len(answer.message) <= 200
    return ReadResult(data=msgspec.json.decode(msgspec.json.encode(answer.data)), message=answer.message)


def updates_of(connection: Connection, session_id: str, *, source: str = "somebody") -> list[dict[str, Any]]:
    """Return a source's updates in a response about the session."""
    listeners = [Listener(session_id=name, source=source) for name in (session_id, "reading-none")]
    updates = find_updates(connection, listeners, NOW)
    assert listeners[1] not in updates
    return updates.get(listeners[0], [])


def pages(rows: Rows, command: Any, **where: Any) -> Iterator[Page]:
    given: dict[str, Any] = {"session_id": None, "session_glob": GLOB, "now": NOW} | where
    while True:
        found = page(rows.connection, command, ReadScope(**given))
        yield found
        if found.next_cursor is None:
            return
        command = msgspec.structs.replace(command, cursor=found.next_cursor)


def test_a_summary_counts_the_contents(walk: Rows) -> None:
    walk.chunk("c1", "hello")
    walk.memory("m1", '"x"')
    walk.memory("m2", '"y"')
    walk.task("t1")
    walk.task("t2", status="completed")
    walk.artifact("a1", '"z"')
    answer = ask(walk, GetSessionSummary())
    assert answer.data == {
        "session_id": "reading-walk",
        "title": "Morning walk",
        "participants": ["Ada"],
        "context": "On foot",
        "status": "active",
        "created": "2026-10-31T12:00:00Z",
        "created_at": "2026-10-31T12:00:00Z",
        "last_activity": "2026-10-31T12:00:00Z",
        "duration_minutes": 0.0,
        "stats": {"conversation_chunks": 1, "memories": 2, "tasks": 2, "artifacts": 1, "active_tasks": 1},
    }
    assert answer.message == '"Morning walk" is active, with 2 memories and 1 open task.'


def test_sessions_come_latest_first_and_page_by_page(walk: Rows) -> None:
    for number in range(5):
        Rows(walk.connection, f"reading-{number}", last_activity_at=NOW + timedelta(days=number // 2))
    Rows(walk.connection, "other", last_activity_at=NOW)
    ids = [[item["session_id"] for item in found.items] for found in pages(walk, ListSessions(limit=2))]
    assert ids == [["reading-4", "reading-3"], ["reading-2", "reading-1"], ["reading-0", "reading-walk"]]


def test_sessions_are_filtered_by_status(walk: Rows) -> None:
    Rows(walk.connection, "reading-done", status="completed", title="Done")
    answer = ask(walk, ListSessions(filter="completed"), session_id=None)
    assert [session["title"] for session in answer.data["sessions"]] == ["Done"]
    assert (answer.data["count"], answer.data["next_cursor"]) == (1, None)
    assert answer.message == "Found 1 session."


def test_decisions_are_found_by_type_and_returned_unchanged(walk: Rows) -> None:
    content = '{"z": 1e23, "a": -0.0,  "ü": "\\u00fc"}'
    walk.memory("database", content, "decision", tags=["tech", "db"])
    walk.memory("roof", '"solar"', "idea")
    read_scope = ReadScope(session_id=walk.session_id, session_glob=None, now=NOW)
    given = read(walk.connection, QueryMemories(type="decision"), read_scope)
    assert content.encode() in msgspec.json.encode(given.data)
    assert given.message == 'Found 1 decision in "Morning walk".'
    (memory,) = ask(walk, QueryMemories(type="decision")).data["memories"]
    assert {name: memory[name] for name in memory if name != "content"} == {
        "key": "database",
        "type": "decision",
        "tags": ["tech", "db"],
        "revision": 1,
        "session_id": "reading-walk",
        "created_at": "2026-10-31T12:00:02Z",
        "updated_at": "2026-10-31T12:00:02Z",
    }


def test_memories_are_found_by_any_tag_by_status_and_by_time(walk: Rows) -> None:
    walk.memory("one", "1", tags=["a"], updated_at=NOW - timedelta(days=3))
    walk.memory("two", "2", tags=["b", "c"], status="done")
    walk.memory("three", "3", tags=["d"])

    def keys(**fields: Any) -> list[str]:
        return [memory["key"] for memory in ask(walk, QueryMemories(**fields)).data["memories"]]

    assert keys(tags=["a", "c"]) == ["two", "one"]
    assert keys(status="done") == ["two"]
    assert keys(since="2d") == ["three", "two"]
    assert keys(until="2d") == ["one"]


def test_across_sessions_a_memory_names_the_title_of_its_session(walk: Rows) -> None:
    other = Rows(walk.connection, "reading-other", title="Evening")
    hidden = Rows(walk.connection, "hidden", title="Hidden")
    for rows in (walk, other, hidden):
        rows.memory("rule", '"keep"', "decision")
    answer = ask(walk, QueryMemories(type="decision"), session_id=None)
    titles = {memory["session_title"] for memory in answer.data["memories"]}
    assert titles == {"Morning walk", "Evening"}
    assert answer.message == "Found 2 decisions in all sessions that are not completed."


def test_paging_through_memories_of_the_same_moment_misses_none(walk: Rows) -> None:
    keys = [f"Schlüssel {number:02}" for number in range(25)]
    for key in keys:
        walk.memory(key, "0", updated_at=NOW)
    found = [
        item["key"] for part in pages(walk, ListMemories(limit=7), session_id=walk.session_id) for item in part.items
    ]
    assert sorted(found) == keys


def test_a_memory_can_be_read_at_any_revision(walk: Rows) -> None:
    walk.memory("plan", '"second"', revision=2)
    walk.revision("plan", 1, '"first"')
    assert ask(walk, RetrieveMemory(key="plan")).data["memory"]["content"] == "second"
    assert ask(walk, RetrieveMemory(key="plan", revision=1)).data["memory"]["content"] == "first"
    with pytest.raises(NotFound, match="revision 3"):
        ask(walk, RetrieveMemory(key="plan", revision=3))


def test_a_long_text_continues_where_it_was_cut(walk: Rows) -> None:
    walk.memory("long", msgspec.json.encode(HOSTILE).decode())
    pieces, offset = [], 0
    while True:
        answer = ask(walk, RetrieveMemory(key="long", offset=offset, max_characters=90_000))
        assert len(msgspec.json.encode(answer.data).decode()) <= 90_000 + ENVELOPE
        pieces.append(answer.data["memory"]["content"])
        if "truncated" not in answer.data["memory"]:
            break
        offset = answer.data["memory"]["next_offset"]
    assert "".join(pieces) == HOSTILE
    assert len(pieces) > 1


def test_an_object_that_is_too_long_is_returned_as_text_in_pieces(walk: Rows) -> None:
    content = '{"items": [' + ", ".join(["1.50"] * 300) + "]}"
    walk.artifact("report", content, name="Report")
    first = ask(walk, GetArtifact(artifact_id="report", max_characters=1_000)).data["artifact"]
    assert (first["truncated"], first["encoding"]) == (True, "json")
    second = ask(walk, GetArtifact(artifact_id="report", offset=first["next_offset"])).data["artifact"]
    assert first["content"] + second["content"] == content
    whole = ask(walk, GetArtifact(artifact_id="report"))
    assert whole.data["artifact"]["content"] == {"items": [1.5] * 300}
    assert whole.message == 'Here is "Report".'


def test_no_response_is_much_longer_than_requested(walk: Rows) -> None:
    text = msgspec.json.encode(HOSTILE).decode()
    names = [f'"{number}' * 50 for number in range(100)]
    for number in range(2):
        walk.memory(f"m{number}", text, tags=names)
        walk.task(f"t{number}", HOSTILE, input_data=text, output=text, error=HOSTILE, progress=text)
        walk.artifact(f"a{number}", text, metadata=text)
        walk.chunk(f"c{number}", HOSTILE, participants=names, metadata=text)
    Rows(walk.connection, "reading-long", context=HOSTILE, participants=names)
    for size in (200, 2_000, 20_000, 90_000):
        for command in (
            ListMemories(max_characters=size),
            ListTasks(max_characters=size),
            ListArtifacts(max_characters=size),
            ListSessions(max_characters=size),
            GetTask(task_id="t1", max_characters=size),
            GetArtifact(artifact_id="a1", max_characters=size),
            RetrieveMemory(key="m1", max_characters=size),
        ):
            answer = ask(walk, command, session_id=None if isinstance(command, ListSessions) else walk.session_id)
            assert len(msgspec.json.encode(answer.data).decode()) <= size + ENVELOPE, command
            assert "truncated" in str(answer.data), command


def test_tasks_come_in_claim_order_before_finished_ones(walk: Rows) -> None:
    walk.task("old")
    walk.task("urgent", priority=5)
    walk.task("first-done", status="completed")
    walk.task("new")
    walk.task("last-done", status="failed")
    found = [[item["task_id"] for item in part.items] for part in pages(walk, ListTasks(limit=2))]
    assert found == [["urgent", "old"], ["new", "last-done"], ["first-done"]]


def test_a_task_names_its_open_and_failed_dependencies(walk: Rows) -> None:
    walk.task("broken", status="failed")
    walk.task("fine", status="completed")
    walk.task("open")
    walk.task("next", "Read it again", depends_on=["open", "fine"])
    assert ask(walk, GetTask(task_id="next")).message == '"Read it again" is waiting for other tasks.'
    walk.task("last", "Write the summary", depends_on=["open", "broken", "fine"])
    answer = ask(walk, GetTask(task_id="last"))
    blocked_by = [{"task_id": "broken", "status": "failed"}, {"task_id": "open", "status": "pending"}]
    assert answer.data["task"]["blocked_by"] == blocked_by
    assert answer.message == '"Write the summary" is waiting for a task that will not be completed.'


def test_a_task_shows_its_result_and_no_claim_token(walk: Rows) -> None:
    walk.task("t1", status="completed", output='{"price": 1.50}', claim_token="secret", claimed_by="laptop")
    task = ask(walk, GetTask(task_id="t1")).data["task"]
    assert task["output"] == {"price": 1.5}
    assert "secret" not in str(task)
    assert "input_data" not in task
    assert None not in task.values()


def test_updates_are_repeated_until_get_task_has_returned_the_task(walk: Rows) -> None:
    question = '[{"question": "Which region?", "asked_at": "2026-10-31T12:00:00Z"}]'
    walk.task("asks", "Research", status="input_required", questions=question)
    walk.task("lying", "Nobody wants it", agent_name="codex", updated_at=NOW - timedelta(minutes=11))
    walk.task("fresh", updated_at=NOW - timedelta(minutes=9))
    walk.task("later", not_before=NOW)
    walk.task("gone", status="cancelled")

    def news() -> dict[str, str]:
        updates = updates_of(walk.connection, walk.session_id, source="chat")
        assert {update["task_id"] for update in updates if update.get("seen")} == seen
        return {update["task_id"]: update["message"] for update in updates if not update.get("seen")}

    seen: set[str] = set()

    expected = {
        "asks": '"Research" is waiting for an answer to a question.',
        "lying": '"Nobody wants it" has not been claimed by codex yet.',
    }
    assert news() == expected
    assert news() == expected
    assert ask(walk, GetTask(task_id="asks"), source="chat").data["task"]["question"] == "Which region?"
    seen = {"asks"}
    assert list(news()) == ["lying"]
    ask(walk, GetTask(task_id="lying"), source="chat")
    seen = {"asks", "lying"}
    assert news() == {}
    changed = {"status": "completed", "updated_at": NOW + timedelta(hours=1), "finished_at": NOW}
    walk.connection.execute(update(TASKS).where(TASKS.c.task_id == "asks").values(changed))
    seen = {"lying"}
    assert news() == {"asks": '"Research" is completed.'}


def test_a_response_has_at_most_five_updates_the_latest_first(walk: Rows) -> None:
    for number in range(7):
        walk.task(f"t{number}", status="failed", error="x" * 1_000)
    updates = updates_of(walk.connection, walk.session_id)
    assert [update["task_id"] for update in updates] == ["t6", "t5", "t4", "t3", "t2"]
    assert len(updates[0]["error"]) == 300


def test_get_task_does_not_wait_for_a_change_of_the_task(engine: Engine) -> None:
    with engine.begin() as connection:
        rows = Rows(connection, "reading-locked")
        rows.task("t1", status="completed")
    try:
        with engine.connect() as holder, engine.connect() as reader:
            holder.execute(select(TASKS.c.task_id).where(TASKS.c.session_id == "reading-locked").with_for_update())
            read_scope = ReadScope(session_id="reading-locked", session_glob=None, now=NOW, source="chat")
            assert read(reader, GetTask(task_id="t1"), read_scope).data["task"]["status"] == "completed"
            [told] = updates_of(reader, "reading-locked", source="chat")
            assert "seen" not in told
            holder.rollback()
            read(reader, GetTask(task_id="t1"), read_scope)
            assert updates_of(reader, "reading-locked", source="chat") == [told | {"seen": True}]
    finally:
        with engine.begin() as connection:
            connection.execute(delete(SESSIONS).where(SESSIONS.c.session_id == "reading-locked"))


def test_artifacts_are_listed_without_content_the_latest_first(walk: Rows) -> None:
    walk.task("t1")
    walk.artifact("one", '"long text"', task_id="t1", metadata='{"a": 1}')
    walk.artifact("two", '"long text"', type="code", format="python")
    answer = ask(walk, ListArtifacts())
    assert [artifact["artifact_id"] for artifact in answer.data["artifacts"]] == ["two", "one"]
    assert "long text" not in str(answer.data)
    assert answer.data["artifacts"][1]["metadata"] == {"a": 1}
    assert ask(walk, ListArtifacts(task_id="t1")).data["count"] == 1
    assert [len(part.items) for part in pages(walk, ListArtifacts(limit=1))] == [1, 1]


def test_an_unknown_id_gets_the_nearest_ones_as_suggestions(walk: Rows) -> None:
    walk.memory("solar roof", "1")
    walk.task("task-research")
    walk.artifact("report-2026", "1")
    for command, code, name in (
        (RetrieveMemory(key="solar rof"), "memory_not_found", "solar roof"),
        (GetTask(task_id="task-reserch"), "task_not_found", "task-research"),
        (GetArtifact(artifact_id="report-2025"), "artifact_not_found", "report-2026"),
    ):
        with pytest.raises(NotFound) as refused:
            ask(walk, command)
        assert refused.value.code == code
        assert f"'{name}'" in (refused.value.hint or "")


def test_suggested_sessions_are_limited_to_those_visible_to_the_key(walk: Rows) -> None:
    Rows(walk.connection, "readinq-walk")
    with pytest.raises(NotFound) as refused:
        ask(walk, ListMemories(), session_id="reading-wolk")
    hint = refused.value.hint or ""
    assert "'reading-walk'" in hint
    assert "readinq" not in hint
    assert "create_session" in hint
    found = similar_sessions(walk.connection, "reading-wolk", session_glob=None)
    assert "readinq-walk" in found


def test_a_session_outside_the_pattern_is_forbidden(walk: Rows) -> None:
    with pytest.raises(Forbidden, match=r"chat-\*"):
        ask(walk, ListMemories(), session_glob="chat-*")


def test_revisions_of_artifacts_are_read_only_with_a_key_for_their_session(walk: Rows) -> None:
    walk.artifact("report", '"new"', revision=2)
    walk.artifact_revision("report", 1, '"secret"')
    assert ask(walk, GetArtifact(artifact_id="report", revision=1)).data["artifact"]["content"] == "secret"
    listed = ask(walk, ListArtifacts(artifact_id="report")).data["artifacts"]
    assert [(item["revision"], item["total_characters"]) for item in listed] == [(2, 3), (1, 6)]
    for command in (GetArtifact(artifact_id="report", revision=1), ListArtifacts(artifact_id="report")):
        with pytest.raises(Forbidden):
            ask(walk, command, session_glob="chat-*")
        other = Rows(walk.connection, f"reading-{type(command).__name__}")
        with pytest.raises(NotFound):
            ask(other, command)


@pytest.mark.parametrize(
    "cursor", ["x", "####", "WzFd", "bnVsbA", "W10", "WyIyMDI2LTAxLTAxVDAwOjAwOjAwWiIsIlx1MDAwMCIsImEiXQ"]
)
def test_an_invalid_cursor_is_refused(walk: Rows, cursor: str) -> None:
    with pytest.raises(Invalid) as refused:
        ask(walk, ListMemories(cursor=cursor))
    assert refused.value.field == "cursor"
    with pytest.raises(Invalid):
        ask(walk, ReadConversation(limit=5, cursor=cursor, max_characters=500))


def test_a_transcript_can_be_read_to_its_end_by_cursors(walk: Rows) -> None:
    texts = ["short", HOSTILE, "middle", "x" * 3_000, "end"]
    for number, text in enumerate(texts):
        walk.chunk(f"c{number}", text, participants=["Ada"])
    read_texts = dict.fromkeys((f"c{number}" for number in range(5)), "")
    cursor = None
    while True:
        part = page(
            walk.connection,
            ReadConversation(limit=2, cursor=cursor, max_characters=20_000),
            ReadScope(session_id=walk.session_id, session_glob=None, now=NOW),
        )
        assert len(msgspec.json.encode(part.items).decode()) <= 20_000 + ENVELOPE
        for item in part.items:
            assert item.get("offset", 0) == len(read_texts[item["chunk_id"]])
            read_texts[item["chunk_id"]] += item["content"]
        if (cursor := part.next_cursor) is None:
            break
    assert list(read_texts.values()) == texts


def test_the_ends_of_several_journals_are_found_by_one_query(walk: Rows, connection: Connection) -> None:
    other = Rows(connection, "reading-other", title="Other")
    walk.event("create_session")
    other.event("create_session")
    walk.event("store_memory")
    ends = last_positions(connection, [walk.session_id, other.session_id, "reading-none"])
    whole = read_events(connection, session_id=walk.session_id, after=None, limit=10, max_characters=2_000)
    assert str(ends[walk.session_id]) == whole.next_cursor
    assert 0 < ends[other.session_id] < ends[walk.session_id]
    assert ends["reading-none"] == 0


def test_a_journal_can_be_followed_from_a_position(walk: Rows) -> None:
    walk.event("session_created", message="Started.", data='{"z": 1, "a": 2}')
    walk.event("memory_stored", status="rejected", delivery_id="d1")

    def events(after: str | None, limit: int = 10) -> Page:
        return read_events(walk.connection, session_id=walk.session_id, after=after, limit=limit, max_characters=2_000)

    first = events(None, limit=1)
    assert [item["event"] for item in first.items] == ["session_created"]
    assert b'{"z": 1, "a": 2}' in msgspec.json.encode(first.items)
    second = events(first.next_cursor)
    assert [(item["status"], item["delivery_id"], item["cursor"]) for item in second.items] == [
        ("rejected", "d1", second.next_cursor)
    ]
    assert events(second.next_cursor).next_cursor == second.next_cursor
    assert events("0", limit=5).items == first.items + second.items
    with pytest.raises(Invalid):
        events("9" * 30)
    with pytest.raises(NotFound):
        read_events(walk.connection, session_id="reading-none", after=None, limit=1, max_characters=500)
