"""Rows for tests of reads, inserted into the tables directly, each a second older than the previous one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Raw
from sqlalchemy import JSON, Connection, Table, Text, cast, insert, literal

from models.tables import (
    ARTIFACT_REVISIONS,
    ARTIFACTS,
    CHUNKS,
    EVENTS,
    MEMORIES,
    MEMORY_REVISIONS,
    SESSIONS,
    TASKS,
)
from sessions.postgres.commands.writing import passage_inserts, send
from sessions.rules.records import Artifact, Chunk, Memory, Record, Session, Task
from sessions.search.passages import passages_of

SEARCHED: dict[Table, type[Record]] = {
    SESSIONS: Session,
    CHUNKS: Chunk,
    MEMORIES: Memory,
    TASKS: Task,
    ARTIFACTS: Artifact,
}
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
BEGINNING = NOW - timedelta(days=1)


class Rows:
    """Inserts rows into one session at a time. JSON is given as the text that a sender would send."""

    def __init__(self, connection: Connection, session_id: str, **fields: Any) -> None:
        self.connection = connection
        self.session_id = session_id
        self.at = fields.pop("at", BEGINNING)
        given = {"title": session_id, "participants": [], "context": "", "status": "active"} | fields
        self._put(SESSIONS, given | {"created_at": self.at, "last_activity_at": given.get("last_activity_at", self.at)})

    def chunk(self, chunk_id: str, content: str, **fields: Any) -> None:
        """Insert a piece of conversation."""
        given = {"format": "dialogue", "participants": [], "extracted_items": "{}", "metadata": "{}"} | fields
        self._put(CHUNKS, {"chunk_id": chunk_id, "content": content, **given})

    def memory(self, key: str, content: str, type: str = "note", **fields: Any) -> None:
        """Insert a memory. `content` is JSON text."""
        given = {"tags": [], "status": "open", "revision": 1} | fields
        self._put(MEMORIES, {"key": key, "type": type, "content": content, **given}, "updated_at")

    def revision(self, key: str, revision: int, content: str, **fields: Any) -> None:
        """Insert an earlier revision of an existing memory."""
        given = {"tags": [], "status": "open", "type": "note"} | fields
        self._put(MEMORY_REVISIONS, {"key": key, "revision": revision, "content": content, **given}, "updated_at")

    def task(self, task_id: str, description: str = "do it", **fields: Any) -> None:
        """Insert a task. `finished_at` and a lease are made up to match its status."""
        given: dict[str, Any] = {"task_type": "general", "priority": 0, "input_data": "{}", "depends_on": []}
        given |= {"max_attempts": 3, "attempt": 0, "status": "pending", "questions": "[]", "description_hash": ""}
        given |= {"task_id": task_id, "description": description} | fields
        if given["status"] in ("completed", "failed", "cancelled"):
            given.setdefault("finished_at", self.at + timedelta(seconds=1))
        if given["status"] in ("claimed", "running"):
            given.setdefault("lease_expires_at", NOW)
        self._put(TASKS, given, "updated_at")

    def artifact(self, artifact_id: str, content: str, **fields: Any) -> None:
        """Insert an artifact. `content` is JSON text."""
        given = {"name": artifact_id, "type": "document", "metadata": "{}"} | fields
        self._put(ARTIFACTS, {"artifact_id": artifact_id, "content": content, **given})

    def artifact_revision(self, artifact_id: str, revision: int, content: str, **fields: Any) -> None:
        """Insert an earlier revision of an existing artifact."""
        given = {"name": artifact_id, "type": "document", "metadata": "{}"} | fields
        values = {"artifact_id": artifact_id, "revision": revision, "content": content, **given}
        self._put(ARTIFACT_REVISIONS, values)

    def event(self, event: str, **fields: Any) -> None:
        """Insert an event into the journal."""
        given = {"status": "applied", "source": "test", "message": "", "data": "{}"} | fields
        self._put(EVENTS, {"event": event, **given})

    def _put(self, table: Table, fields: dict[str, Any], *times: str) -> None:
        self.at += timedelta(seconds=1)
        columns = table.columns
        values = {"session_id": self.session_id, "created_at": self.at} | dict.fromkeys(times, self.at) | fields
        if "created_by" in columns:
            values.setdefault("created_by", "test")
        json = {name for name, value in values.items() if isinstance(columns[name].type, JSON) and value is not None}
        self.connection.execute(
            insert(table).values(
                {name: cast(literal(value, Text), JSON) if name in json else value for name, value in values.items()}
            )
        )
        if (kind := SEARCHED.get(table)) is not None:
            send(self.connection, passage_inserts(list(passages_of(_record(kind, values, json)))))


def _record(kind: type[Record], values: dict[str, Any], json: set[str]) -> Record:
    """Return a row as a record, with None in the fields that were not given."""
    given: dict[str, Any] = {name: Raw(value.encode()) if name in json else value for name, value in values.items()}
    fields = zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True)
    values_by_field: dict[str, Any] = {field: given.get(column) for field, column in fields}
    return kind(**values_by_field)
