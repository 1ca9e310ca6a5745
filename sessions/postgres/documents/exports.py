"""Exports a complete session from Postgres as a JSON document."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from sqlalchemy import JSON, Connection, Executable, Select, Table, cast, select, union_all

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
from sessions.documents.document import (
    ArtifactItem,
    ArtifactRevisionItem,
    ChunkItem,
    EventItem,
    Item,
    MemoryItem,
    RevisionItem,
    SessionItem,
    TaskItem,
    make_item,
    write_document,
)
from sessions.postgres.reads.partial_values import Verbatim
from sessions.postgres.reads.read_scope import require_session, stream


def export_session(connection: Connection, session_id: str) -> Iterator[bytes]:
    """Return the document in pieces. For a consistent snapshot the transaction must be REPEATABLE READ. Raises NotFound
    before the first piece."""
    require_session(connection, session_id)
    return _document(connection, session_id)


def _document(connection: Connection, session_id: str) -> Iterator[bytes]:
    session = connection.execute(_rows(SESSIONS, SessionItem, session_id)).one()

    def items(table: Any, kind: type[Item], *order: Any) -> Iterator[Item]:
        return _items(connection, kind, _rows(table, kind, session_id).order_by(*order))

    lists = (
        items(CHUNKS, ChunkItem, CHUNKS.c.position),
        _memories(connection, session_id),
        items(TASKS, TaskItem, TASKS.c.position),
        items(ARTIFACTS, ArtifactItem, ARTIFACTS.c.position),
        items(ARTIFACT_REVISIONS, ArtifactRevisionItem, *_ORDER_OF_REVISIONS),
        items(EVENTS, EventItem, EVENTS.c.event_id),
    )
    return write_document(make_item(SessionItem, session._mapping), lists)


_ORDER_OF_REVISIONS = (ARTIFACT_REVISIONS.c.artifact_id.collate("C"), ARTIFACT_REVISIONS.c.revision)
"""The same in all databases and in the JSON store."""


def _items(connection: Connection, kind: type[Item], statement: Executable) -> Iterator[Item]:
    return (make_item(kind, row._mapping) for row in stream(connection, statement))


def _memories(connection: Connection, session_id: str) -> Iterator[Item]:
    """Read memories with their revisions in one statement, so that no revision lacks its memory: the last per group."""
    latest = _rows(MEMORIES, RevisionItem, session_id).add_columns(MEMORIES.c.created_at.label("made_at"))
    of_memory = (MEMORIES.c.session_id == MEMORY_REVISIONS.c.session_id) & (MEMORIES.c.key == MEMORY_REVISIONS.c.key)
    earlier = _rows(MEMORY_REVISIONS, RevisionItem, session_id).add_columns(MEMORIES.c.created_at.label("made_at"))
    both = union_all(latest, earlier.join(MEMORIES, of_memory)).subquery()
    # The same order of keys in all databases and in the JSON store.
    in_order = select(both).order_by(both.c.made_at, both.c.key.collate("C"), both.c.revision)
    for _, group in groupby(stream(connection, in_order), key=lambda row: row.key):
        *revisions, memory = (row._mapping for row in group)
        earlier_items = [make_item(RevisionItem, revision) for revision in revisions]
        yield make_item(MemoryItem, {**memory, "revisions": earlier_items})


def _rows(table: Table, kind: type[Item], session_id: str) -> Select[Any]:
    columns = [table.columns[name] for name in kind.__struct_fields__]
    selected = [
        cast(column, Verbatim).label(column.name) if isinstance(column.type, JSON) else column for column in columns
    ]
    return select(*selected).where(table.c.session_id == session_id)
