"""Recent activity in Postgres: what a key sees, and that finding it does not read the whole tables."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from models.commands.definitions import RecentActivity
from sessions.postgres.reads import recent_activity
from sessions.postgres.reads.read_commands import read
from sessions.reads.read_scope import ReadScope
from tests.support.stores.rows import NOW, Rows

STORED = 10_000
"""Rows of each kind; a plan that reads all of one kind exceeds the bound ten times."""
EXAMINED = 1_000
FILL = f"""
INSERT INTO conversation_chunks (session_id, chunk_id, content, format, participants, extracted_items, metadata,
    created_by, created_at)
SELECT 'acts-' || n %% 20, n, 'x', 'dialogue', '{{}}', '{{}}', '{{}}', 'k', now() - n * interval '1 minute'
FROM generate_series(1, {STORED}) n;
INSERT INTO memories (session_id, key, revision, type, content, tags, status, created_by, created_at, updated_at)
SELECT 'acts-' || n %% 20, n, 1, 'note', '1', '{{}}', 'open', 'k', now() - n * interval '1 minute',
    now() - n * interval '1 minute' FROM generate_series(1, {STORED}) n;
INSERT INTO tasks (session_id, task_id, task_type, description, description_hash, priority, input_data, depends_on,
    max_attempts, attempt, status, questions, created_by, created_at, updated_at)
SELECT 'acts-' || n %% 20, n, 'general', 'x', '', 0, '{{}}', '{{}}', 3, 0, 'pending', '[]', 'k',
    now() - n * interval '1 minute', now() - n * interval '1 minute' FROM generate_series(1, {STORED}) n;
INSERT INTO artifacts (session_id, artifact_id, name, type, content, metadata, created_by, created_at)
SELECT 'acts-' || n %% 20, n, 'x', 'document', '1', '{{}}', 'k', now() - n * interval '1 minute'
FROM generate_series(1, {STORED}) n;
ANALYZE conversation_chunks, memories, tasks, artifacts
"""


def scope(session_id: str | None = None, *, glob: str | None = None) -> ReadScope:
    return ReadScope(session_id=session_id, session_glob=glob, now=NOW)


def test_a_limited_key_sees_only_its_own_sessions(connection: Connection) -> None:
    for session_id in ("acts-own", "other-own"):
        rows = Rows(connection, session_id)
        rows.memory("k", '"x"')
        rows.chunk("c", "x")
        rows.task("t")
        rows.artifact("a", '"x"')
    found = read(connection, RecentActivity(limit=500), scope(glob="acts-*")).data["activity"]
    assert {item["session_id"] for item in found} == {"acts-own"}
    assert [item["kind"] for item in found] == ["artifact", "task", "conversation", "memory", "session"]


def test_few_rows_are_examined_however_many_there_are(connection: Connection) -> None:
    for number in range(20):
        Rows(connection, f"acts-{number}")
    for insertion in FILL.split(";\n"):
        connection.exec_driver_sql(insertion)
    for command, read_scope in (
        (RecentActivity(), scope()),
        (RecentActivity(since="2020-01-01", until="2999-01-01"), scope()),
        (RecentActivity(until="2021-01-01"), scope()),
        (RecentActivity(until="2999-01-01"), scope("acts-3")),
        (RecentActivity(), scope(glob="none-*")),
    ):
        statement = recent_activity.latest(command, read_scope)
        compiled = str(statement.compile(connection, compile_kwargs={"literal_binds": True})).replace("%", "%%")
        [plan] = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {compiled}").scalars()
        assert examined(plan) < EXAMINED, (command, read_scope)


def examined(part: Any) -> int:
    """Return the rows that the scans of a plan read."""
    if isinstance(part, list):
        return sum(map(examined, part))
    if not isinstance(part, dict):
        return 0
    own = 0
    if "Scan" in part.get("Node Type", "") and "Relation Name" in part:
        own = int(part["Actual Rows"]) + int(part.get("Rows Removed by Filter", 0))
    return own + sum(examined(inner) for inner in part.values() if isinstance(inner, dict | list))
