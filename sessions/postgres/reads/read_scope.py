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
from models.tables import ArtifactRow, ChunkRow, MemoryRow, SessionRow, TaskRow
from sessions.reads.not_found import CANDIDATES, Kind, missing, nearest_of
from sessions.reads.read_scope import ReadScope

ROWS_AT_A_TIME = 50
"""Rows fetched at once; a row may be as large as the whole response."""

_IDS: dict[Kind, tuple[Any, Any]] = {
    "session": (SessionRow.session_id, SessionRow.last_activity_at),
    "chunk": (ChunkRow.chunk_id, ChunkRow.position),
    "memory": (MemoryRow.key, MemoryRow.updated_at),
    "task": (TaskRow.task_id, TaskRow.position),
    "artifact": (ArtifactRow.artifact_id, ArtifactRow.position),
}
"""The id column of each kind, and the column that orders it by age."""


def within(read_scope: ReadScope, column: Any) -> ColumnElement[bool]:
    """Return the condition on a session_id column."""
    return _within(column, read_scope.session_id, read_scope.session_glob)


def missing_in(
    connection: Connection, read_scope: ReadScope, kind: Kind, wanted: str, *, message: str = ""
) -> NotFound:
    """Return the error for an id that does not exist."""
    session_id, session_glob = read_scope.session_id, read_scope.session_glob
    return not_found(connection, kind, wanted, session_id=session_id, session_glob=session_glob, message=message)


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
        statement = select(SessionRow.title).where(SessionRow.session_id == session_id)
        title = connection.execute(statement).scalar_one_or_none()
        if title is not None:
            return title
    raise not_found(connection, "session", session_id, session_id=session_id, session_glob=session_glob)


def stream(connection: Connection, statement: Executable) -> Iterator[Row[Any]]:
    """Stream rows, holding few in memory. Rows that the caller does not read are not fetched."""
    with connection.execute(statement, execution_options={"yield_per": ROWS_AT_A_TIME}) as rows:
        yield from rows


def not_found(
    connection: Connection,
    kind: Kind,
    wanted: str,
    *,
    session_id: str | None,
    session_glob: str | None,
    message: str = "",
) -> NotFound:
    """Return the error for an id that does not exist, with similar ids."""
    similar = similar_ids(connection, kind, wanted, session_id=session_id, session_glob=session_glob)
    return missing(kind, wanted, similar=similar, message=message)


def similar_ids(
    connection: Connection, kind: Kind, wanted: str, *, session_id: str | None, session_glob: str | None
) -> list[str]:
    """Return up to three similar ids, the closest first, among the latest that the key may read."""
    column, latest = _IDS[kind]
    is_visible = _within(column.class_.session_id, None if kind == "session" else session_id, session_glob)
    statement = select(column).where(is_visible).order_by(latest.desc()).limit(CANDIDATES)
    known = connection.execute(statement).scalars().all()
    return nearest_of(wanted, known)


def _within(column: Any, session_id: str | None, session_glob: str | None) -> ColumnElement[bool]:
    if session_id is not None:
        return cast(ColumnElement[bool], column == session_id)
    if session_glob is not None:
        return cast(ColumnElement[bool], column.like(like_pattern(session_glob), escape="\\"))
    return true()
