"""Reads a session's event log from a position."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Text, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY

from models.tables import EVENTS
from sessions.postgres.reads.partial_values import json_excerpt
from sessions.postgres.reads.read_scope import require_session, stream
from sessions.reads.pagination import decode_position, fill
from sessions.reads.results import Page
from sessions.reads.serializers import event_item


def read_events(connection: Connection, *, session_id: str, after: str | None, limit: int, max_characters: int) -> Page:
    """List events in the order in which they became visible. `next_cursor` is never None: clients can continue from it
    even while the log is empty. Raises NotFound, or Invalid for an invalid position."""
    position = decode_position(after)
    require_session(connection, session_id)
    statement = (
        select(*_event_columns(max_characters // 2))
        .where(EVENTS.c.session_id == session_id, EVENTS.c.event_id > position)
        .order_by(EVENTS.c.event_id)
        .limit(limit + 1)
    )
    entries = ((row.event_id, event_item(row._mapping)) for row in stream(connection, statement))
    page = fill(entries, limit=limit, room=max_characters)
    last = page.items[-1]["cursor"] if page.items else str(position)
    return Page(items=page.items, next_cursor=last, truncated=page.truncated)


def latest_events(
    connection: Connection, *, session_id: str, before: str | None, limit: int, max_characters: int
) -> Page:
    """List events, the latest first, from the position `before` back. Raises Invalid for an invalid position."""
    statement = select(*_event_columns(max_characters // 2)).where(EVENTS.c.session_id == session_id)
    if before is not None:
        statement = statement.where(EVENTS.c.event_id < decode_position(before))
    rows = stream(connection, statement.order_by(EVENTS.c.event_id.desc()).limit(limit + 1))
    page = fill(((row.event_id, event_item(row._mapping)) for row in rows), limit=limit, room=max_characters)
    last = page.items[-1]["cursor"] if page.items and page.next_cursor else None
    return Page(items=page.items, next_cursor=last, truncated=page.truncated)


def _event_columns(room: int) -> Sequence[ColumnElement[Any]]:
    plain = ("event_id", "event", "status", "delivery_id", "source", "created_at", "message")
    return [*(EVENTS.c[name] for name in plain), *json_excerpt(EVENTS.c.data, "data", room=room)]


def last_positions(connection: Connection, session_ids: Collection[str]) -> dict[str, int]:
    """Return the last event id of each session, in one statement."""
    names = func.unnest(bindparam("names", list(session_ids), type_=ARRAY(Text))).table_valued("name")
    last = select(func.max(EVENTS.c.event_id)).where(EVENTS.c.session_id == names.c.name).scalar_subquery()
    return {name: position or 0 for name, position in connection.execute(select(names.c.name, last))}
