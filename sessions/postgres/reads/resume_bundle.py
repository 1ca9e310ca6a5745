"""Reads the sections of a resume bundle from Postgres."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, Select, func, select
from sqlalchemy.orm import aliased

from models.commands.definitions import ResumeBundle
from models.due import NEVER
from models.tables import ArtifactRow, ChunkRow, MemoryRow, SessionRow, TaskRow
from sessions.postgres.reads.artifacts import artifact_columns
from sessions.postgres.reads.memories import memory_columns
from sessions.postgres.reads.partial_values import json_excerpt
from sessions.postgres.reads.read_scope import stream, within
from sessions.postgres.reads.sessions import session_columns
from sessions.postgres.reads.tasks import task_columns
from sessions.reads.partial_values import Columns
from sessions.reads.read_scope import ReadScope
from sessions.reads.resume_bundle import HEAD_CHARACTERS, MOST_ITEMS, Section, compose, none_active

_TOTAL = func.count().over().label("total")


def resume_bundle(connection: Connection, command: ResumeBundle, *, read_scope: ReadScope) -> dict[str, Any]:
    """Return the bundle of the session, or of the most recently active one. Raises NotFound."""
    room = command.max_characters
    session_id = read_scope.session_id or _latest_active(connection, read_scope)
    session = connection.execute(select(*session_columns(room)).where(SessionRow.session_id == session_id)).one()

    def rows(section: Section, room: int) -> Iterator[Columns]:
        statement = _SELECTS.get(section.name, _memories)(section, session_id, room)
        return (row._mapping for row in stream(connection, statement.limit(MOST_ITEMS)))

    return compose(session._mapping, rows, room=room)


def _memories(section: Section, session_id: str, room: int) -> Select[Any]:
    """Choose the memories first, since to cut the contents of all of them would be slow."""
    assert section.memories is not None
    order: list[Any] = [MemoryRow.status == "superseded", MemoryRow.updated_at.desc(), MemoryRow.key.desc()]
    if section.memories.are_due:
        order.insert(1, func.coalesce(MemoryRow.due, NEVER))
    place = func.row_number().over(order_by=order).label("place")
    chosen = (
        select(MemoryRow, place, _TOTAL)
        .where(
            MemoryRow.session_id == session_id,
            MemoryRow.type.in_(section.memories.types),
            MemoryRow.status.in_(section.memories.statuses),
        )
        .order_by(place)
        .limit(MOST_ITEMS)
        .subquery()
    )
    columns = memory_columns(aliased(MemoryRow, chosen), room=room)
    return select(*columns, chosen.c.total).order_by(chosen.c.place)


def _tasks(section: Section, session_id: str, room: int) -> Select[Any]:
    unfinished = (TaskRow.session_id == session_id, TaskRow.finished_at.is_(None))
    return select(*task_columns(room), _TOTAL).where(*unfinished).order_by(TaskRow.priority.desc(), TaskRow.position)


def _artifacts(section: Section, session_id: str, room: int) -> Select[Any]:
    content = json_excerpt(ArtifactRow.content, "content", room=HEAD_CHARACTERS)
    statement = select(*artifact_columns(room), *content, _TOTAL).where(ArtifactRow.session_id == session_id)
    return statement.order_by(ArtifactRow.position.desc())


def _chunks(section: Section, session_id: str, room: int) -> Select[Any]:
    content = func.right(ChunkRow.content, room).label("content")
    length = func.char_length(ChunkRow.content).label("length")
    statement = select(ChunkRow.chunk_id, ChunkRow.start_at, ChunkRow.created_at, content, length, _TOTAL)
    latest = (ChunkRow.said_at.desc(), ChunkRow.position.desc())
    return statement.where(ChunkRow.session_id == session_id).order_by(*latest)


_SELECTS: dict[str, Callable[[Section, str, int], Select[Any]]] = {
    "tasks": _tasks,
    "artifacts": _artifacts,
    "conversation": _chunks,
}


def _latest_active(connection: Connection, read_scope: ReadScope) -> str:
    statement = (
        select(SessionRow.session_id)
        .where(SessionRow.status == "active", within(read_scope, SessionRow.session_id))
        .order_by(SessionRow.last_activity_at.desc(), SessionRow.session_id.desc())
    )
    session_id = connection.execute(statement.limit(1)).scalar_one_or_none()
    if session_id is None:
        raise none_active()
    return session_id
