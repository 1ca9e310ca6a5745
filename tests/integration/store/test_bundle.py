"""The resume bundle: the most useful content within the requested size."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection

from models.commands.definitions import ResumeBundle
from models.errors import NotFound
from sessions.postgres.reads.read_commands import read
from sessions.reads.read_scope import ReadScope
from tests.support.stores.rows import NOW, Rows

GLOB = "bundle-*"


@pytest.fixture
def walk(connection: Connection) -> Rows:
    rows = Rows(connection, "bundle-walk", title="Morning walk", context="A house")
    rows.memory("q-open", '"Which roof?"', "question")
    rows.memory("q-done", '"Which town?"', "question", status="done")
    rows.memory("todo", '"Call Jörg"', "action_item")
    rows.memory("decided", '{"description": "solar"}', "decision")
    rows.memory("old", '"gas"', "decision", status="superseded")
    rows.memory("likes", '"short answers"', "preference")
    rows.task("t1", "Compare prices")
    rows.task("t2", "Done before", status="completed")
    rows.artifact("a1", msgspec.json.encode("# Report\n" + "x" * 2_000).decode(), name="Report")
    rows.chunk("c1", "first")
    rows.chunk("c2", "second")
    return rows


def bundle(rows: Rows, **fields: Any) -> dict[str, Any]:
    session_id = fields.pop("session_id", rows.session_id)
    command = ResumeBundle(**fields)
    answer = read(rows.connection, command, ReadScope(session_id=session_id, session_glob=GLOB, now=NOW))
    encoded = msgspec.json.encode(answer.data)
    assert len(encoded.decode()) <= max(command.max_characters, 1_000)
    assert len(answer.message) <= 200
    data: dict[str, Any] = msgspec.json.decode(encoded)
    return data


def test_a_bundle_has_open_items_decisions_and_the_latest_conversation(walk: Rows) -> None:
    data = bundle(walk)
    assert data["session"]["title"] == "Morning walk"
    assert data["session"]["context"] == "A house"
    assert [memory["content"] for memory in data["open_questions"]] == ["Which roof?"]
    assert [memory["content"] for memory in data["action_items"]] == ["Call Jörg"]
    assert [(memory["content"], memory.get("status")) for memory in data["decisions"]] == [
        ({"description": "solar"}, None),
        ("gas", "superseded"),
    ]
    assert [memory["key"] for memory in data["other_memories"]] == ["likes"]
    assert [task["description"] for task in data["tasks"]] == ["Compare prices"]
    assert [chunk["content"] for chunk in data["conversation"]] == ["first", "second"]
    (artifact,) = data["artifacts"]
    assert artifact["content"].startswith("# Report\n")
    assert (artifact["name"], artifact["next_offset"]) == ("Report", 500)
    assert data["truncated"] is True
    assert data["left_out"] == {}
    assert "get_artifact" in data["read_on"]


def test_a_truncated_bundle_says_so_and_keeps_the_end_of_the_conversation(walk: Rows) -> None:
    for number in range(200):
        walk.memory(f"d{number}", '"' + "x" * 300 + '"', "decision")
        walk.chunk(f"long {number}", f"{number} " + "y" * 5_000 + f" end of {number}")
    data = bundle(walk, max_characters=8_000)
    assert data["conversation"][-1]["content"].endswith("end of 199")
    assert data["left_out"]["decisions"] == 202 - len(data["decisions"])
    assert data["left_out"]["conversation"] == 202 - len(data["conversation"])
    assert data["decisions"]
    assert [memory["key"] for memory in data["open_questions"]] == ["q-open"]


def test_a_bundle_of_any_size_fits_for_any_session(connection: Connection) -> None:
    hostile = ('"\\\n😀' + "\x01" * 32) * 500  # As JSON longer than the longest bundle, with few words.
    text = msgspec.json.encode(hostile).decode()
    names = [f'"{number}' * 50 for number in range(100)]
    rows = Rows(connection, "bundle-hostile", title='"' * 256, context=hostile, participants=names)
    for number in range(2):
        for kind in ("question", "action_item", "decision", "note"):
            rows.memory(f"{kind} {number}", text, kind, tags=names)
        rows.task(f"t{number}", hostile, error=hostile)
        rows.artifact(f"a{number}", text, metadata=text)
        rows.chunk(f"c{number}", hostile)
    for max_characters in (200, 1_000, 5_000, 90_000):
        assert bundle(rows, max_characters=max_characters)["truncated"] is True, max_characters


def test_without_a_session_the_latest_active_one_visible_to_the_key_is_used(walk: Rows) -> None:
    Rows(walk.connection, "bundle-latest", last_activity_at=NOW, status="paused")
    Rows(walk.connection, "other", last_activity_at=NOW + timedelta(days=1))
    assert bundle(walk, session_id=None)["session"]["session_id"] == "bundle-walk"


def test_without_any_active_session_a_hint_is_given(connection: Connection) -> None:
    with pytest.raises(NotFound) as refused:
        read(connection, ResumeBundle(), ReadScope(session_id=None, session_glob="no-such-*", now=NOW))
    assert refused.value.code == "session_not_found"
    assert "create_session" in (refused.value.hint or "")
