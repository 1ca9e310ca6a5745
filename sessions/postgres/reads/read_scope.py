"""The sessions that a read may access: one, or all that the key's pattern allows; and the errors for missing ids."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

from sqlalchemy import ColumnElement, Connection, Executable, Row, and_, select, true

from models.access.session_glob import like_pattern, require_visible
from models.commands.definitions import PeriodCommand
from models.errors import NotFound
from models.field_types import ID_PATTERN
from models.tables import ARTIFACTS, CHUNKS, MEMORIES, SESSIONS, TASKS
from sessions.reads.not_found import CANDIDATES, Kind, missing, nearest_of
from sessions.reads.read_scope import ReadScope
from sessions.reads.session_names import nearest_sessions

ROWS_AT_A_TIME = 50
"""Rows fetched at once; a row may be as large as the whole response."""

_IDS: dict[Kind, tuple[Any, Any]] = {
    "chunk": (CHUNKS.c.chunk_id, CHUNKS.c.position),
    "memory": (MEMORIES.c.key, MEMORIES.c.updated_at),
    "task": (TASKS.c.task_id, TASKS.c.position),
    "artifact": (ARTIFACTS.c.artifact_id, ARTIFACTS.c.position),
}
"""The id column of each kind, and the column that orders it by age."""


def within(read_scope: ReadScope, column: Any) -> ColumnElement[bool]:
    """Return the condition on a session_id column."""
    return _within(column, read_scope.session_id, read_scope.session_glob)


def missing_in(
    connection: Connection, read_scope: ReadScope, kind: Kind, wanted: str, *, message: str = ""
) -> NotFound:
    """Return the error for an id that does not exist in the session, with similar ids among the latest."""
    column, latest = _IDS[kind]
    statement = select(column).where(column.table.c.session_id == read_scope.session_id)
    known = connection.execute(statement.order_by(latest.desc()).limit(CANDIDATES)).scalars().all()
    return missing(kind, wanted, similar=nearest_of(wanted, known), message=message)


def during(read_scope: ReadScope, command: PeriodCommand, column: Any) -> ColumnElement[bool]:
    """Return the condition that a time is in the command's period."""
    since, until = command.period(read_scope.now)
    after = true() if since is None else column >= since
    before = true() if until is None else column < until
    return and_(after, before)


def require_session(connection: Connection, session_id: str, session_glob: str | None = None) -> str:
    """Return the title of a session. Raises Forbidden or NotFound."""
    require_visible(session_id, session_glob)
    if re.search(ID_PATTERN, session_id):
        statement = select(SESSIONS.c.title).where(SESSIONS.c.session_id == session_id)
        title = connection.execute(statement).scalar_one_or_none()
        if title is not None:
            return title
    raise missing("session", session_id, similar=similar_sessions(connection, session_id, session_glob=session_glob))


def stream(connection: Connection, statement: Executable) -> Iterator[Row[Any]]:
    """Stream rows, holding few in memory. Rows that the caller does not read are not fetched."""
    with connection.execute(statement, execution_options={"yield_per": ROWS_AT_A_TIME}) as rows:
        yield from rows


def similar_sessions(connection: Connection, wanted: str, *, session_glob: str | None) -> dict[str, str]:
    """Return up to three sessions with a similar id or title, among the latest that the key may read."""
    statement = select(SESSIONS.c.session_id, SESSIONS.c.title).where(
        _within(SESSIONS.c.session_id, None, session_glob)
    )
    statement = statement.order_by(SESSIONS.c.last_activity_at.desc(), SESSIONS.c.session_id.desc()).limit(CANDIDATES)
    return nearest_sessions(wanted, {row.session_id: row.title for row in connection.execute(statement)})


def _within(column: Any, session_id: str | None, session_glob: str | None) -> ColumnElement[bool]:
    if session_id is not None:
        return cast(ColumnElement[bool], column == session_id)
    if session_glob is not None:
        return cast(ColumnElement[bool], column.like(like_pattern(session_glob), escape="\\"))
    return true()
