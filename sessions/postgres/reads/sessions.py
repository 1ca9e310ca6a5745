"""Reads of sessions: the list, and the summary with counts, which are computed on read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, func, literal_column, select, tuple_

from models.commands.definitions import GetSessionSummary, ListSessions
from models.field_types import UNFINISHED
from models.tables import ARTIFACTS, CHUNKS, MEMORIES, SESSIONS, TASKS
from sessions.postgres.reads.partial_values import text_excerpt
from sessions.postgres.reads.read_scope import during, stream, within
from sessions.reads.pagination import decode_cursor, fill
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import Page
from sessions.reads.serializers import session_item
from sessions.reads.session_names import CONTEXT_LENGTH, MARKS, SPELLINGS, words_of
from sessions.reads.truncation import fit

_COUNTED = (
    (CHUNKS.c, "conversation_chunks"),
    (MEMORIES.c, "memories"),
    (TASKS.c, "tasks"),
    (ARTIFACTS.c, "artifacts"),
)


def _folded(text: ColumnElement[str]) -> ColumnElement[str]:
    """Fold a text as `sessions.reads.session_names.fold` does. Normalizing takes most of the time, so ASCII is not."""
    folded = func.regexp_replace(func.lower(func.normalize(text, literal_column("NFKD"))), MARKS, "", "g")
    for letter, spelling in SPELLINGS.items():
        folded = func.replace(folded, letter, spelling)
    return case((func.octet_length(text) == func.char_length(text), func.lower(text)), else_=folded)


_FOLDED = _folded(
    func.concat_ws(" ", SESSIONS.c.session_id, SESSIONS.c.title, func.left(SESSIONS.c.context, CONTEXT_LENGTH))
)


def list_sessions(connection: Connection, command: ListSessions, *, read_scope: ReadScope) -> Page:
    """List sessions, the most recently active first."""
    statement = select(*session_columns(command.max_characters // 2)).where(within(read_scope, SESSIONS.c.session_id))
    statement = statement.where(during(read_scope, command, SESSIONS.c.last_activity_at))
    if command.q is not None:
        statement = statement.where(*(func.strpos(_FOLDED, word) > 0 for word in words_of(command.q)))
    if command.filter != "all":
        statement = statement.where(SESSIONS.c.status == command.filter)
    order = (SESSIONS.c.last_activity_at, SESSIONS.c.session_id)
    if after := decode_cursor(command.cursor, tuple[datetime, str]):
        statement = statement.where(tuple_(*order) < after)
    rows = stream(connection, statement.order_by(*(column.desc() for column in order)).limit(command.limit + 1))
    entries = (((row.last_activity_at, row.session_id), session_item(row._mapping)) for row in rows)
    return fill(entries, limit=command.limit, room=command.max_characters)


def get_session_summary(connection: Connection, command: GetSessionSummary, *, read_scope: ReadScope) -> dict[str, Any]:
    """Return the summary of an existing session."""
    statement = select(*session_columns(command.max_characters)).where(SESSIONS.c.session_id == read_scope.session_id)
    return fit(session_item(connection.execute(statement).one()._mapping), command.max_characters)


def session_columns(room: int) -> Sequence[ColumnElement[Any]]:
    """Return the columns for `sessions.reads.serializers.session_item`."""
    plain = ("session_id", "title", "participants", "status", "created_by")
    times = ("created_at", "last_activity_at", "completed_at")
    counts = [
        select(func.count()).where(table.session_id == SESSIONS.c.session_id).scalar_subquery().label(name)
        for table, name in _COUNTED
    ]
    active = select(func.count()).where(TASKS.c.session_id == SESSIONS.c.session_id, TASKS.c.status.in_(UNFINISHED))
    return [
        *(SESSIONS.c[name] for name in plain + times),
        *text_excerpt(SESSIONS.c.context, "context", room=room),
        *counts,
        active.scalar_subquery().label("active_tasks"),
    ]
