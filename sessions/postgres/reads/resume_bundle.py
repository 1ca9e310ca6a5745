"""Reads the sections of a resume bundle from Postgres."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, Select, func, select

from models.commands.definitions import ResumeBundle
from models.due import NEVER
from models.tables import ARTIFACTS, CHUNKS, MEMORIES, SESSIONS, TASKS, said_at
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
    session = connection.execute(select(*session_columns(room)).where(SESSIONS.c.session_id == session_id)).one()

    def rows(section: Section, room: int) -> Iterator[Columns]:
        statement = _SELECTS.get(section.name, _memories)(section, session_id, room)
        return (row._mapping for row in stream(connection, statement.limit(MOST_ITEMS)))

    return compose(session._mapping, rows, room=room)


def _memories(section: Section, session_id: str, room: int) -> Select[Any]:
    """Choose the memories first, since to cut the contents of all of them would be slow."""
    assert section.memories is not None
    order: list[Any] = [MEMORIES.c.status == "superseded", MEMORIES.c.updated_at.desc(), MEMORIES.c.key.desc()]
    if section.memories.are_due:
        order.insert(1, func.coalesce(MEMORIES.c.due, NEVER))
    place = func.row_number().over(order_by=order).label("place")
    chosen = (
        select(MEMORIES, place, _TOTAL)
        .where(
            MEMORIES.c.session_id == session_id,
            MEMORIES.c.type.in_(section.memories.types),
            MEMORIES.c.status.in_(section.memories.statuses),
        )
        .order_by(place)
        .limit(MOST_ITEMS)
        .subquery()
    )
    columns = memory_columns(chosen.c, room=room)
    return select(*columns, chosen.c.total).order_by(chosen.c.place)


def _tasks(section: Section, session_id: str, room: int) -> Select[Any]:
    unfinished = (TASKS.c.session_id == session_id, TASKS.c.finished_at.is_(None))
    return select(*task_columns(room), _TOTAL).where(*unfinished).order_by(TASKS.c.priority.desc(), TASKS.c.position)


def _artifacts(section: Section, session_id: str, room: int) -> Select[Any]:
    content = json_excerpt(ARTIFACTS.c.content, "content", room=HEAD_CHARACTERS)
    statement = select(*artifact_columns(room), *content, _TOTAL).where(ARTIFACTS.c.session_id == session_id)
    return statement.order_by(ARTIFACTS.c.position.desc())


def _chunks(section: Section, session_id: str, room: int) -> Select[Any]:
    content = func.right(CHUNKS.c.content, room).label("content")
    length = func.char_length(CHUNKS.c.content).label("length")
    statement = select(CHUNKS.c.chunk_id, CHUNKS.c.start_at, CHUNKS.c.created_at, content, length, _TOTAL)
    latest = (said_at(CHUNKS.c).desc(), CHUNKS.c.position.desc())
    return statement.where(CHUNKS.c.session_id == session_id).order_by(*latest)


_SELECTS: dict[str, Callable[[Section, str, int], Select[Any]]] = {
    "tasks": _tasks,
    "artifacts": _artifacts,
    "conversation": _chunks,
}


def _latest_active(connection: Connection, read_scope: ReadScope) -> str:
    statement = (
        select(SESSIONS.c.session_id)
        .where(SESSIONS.c.status == "active", within(read_scope, SESSIONS.c.session_id))
        .order_by(SESSIONS.c.last_activity_at.desc(), SESSIONS.c.session_id.desc())
    )
    session_id = connection.execute(statement.limit(1)).scalar_one_or_none()
    if session_id is None:
        raise none_active()
    return session_id
