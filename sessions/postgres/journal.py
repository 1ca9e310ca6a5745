"""Reading a session's journal from a position on."""

from __future__ import annotations

from sqlalchemy import Connection, select

from models.errors import Invalid
from models.tables import EventRow
from sessions.answers import Page
from sessions.items import event_item
from sessions.paging import fill
from sessions.postgres.excerpts import json_excerpt
from sessions.postgres.reach import require_session, stream

BEGINNING = "0"
_LAST = 2**63 - 1


def read_events(connection: Connection, *, session_id: str, after: str | None, limit: int, max_characters: int) -> Page:
    """Events in the order in which they became visible. `next_cursor` is never None: it is where to go on, also when
    there is nothing yet. Raises NotFound, or Invalid for a position that is none."""
    position = _position(after or BEGINNING)
    require_session(connection, session_id)
    plain = ("event_id", "event", "status", "delivery_id", "source", "created_at", "message")
    data = json_excerpt(EventRow.data, "data", room=max_characters // 2)
    statement = (
        select(*(getattr(EventRow, name) for name in plain), *data)
        .where(EventRow.session_id == session_id, EventRow.event_id > position)
        .order_by(EventRow.event_id)
        .limit(limit + 1)
    )
    entries = ((row.event_id, event_item(row._mapping)) for row in stream(connection, statement))
    page = fill(entries, limit=limit, room=max_characters)
    last = page.items[-1]["cursor"] if page.items else str(position)
    return Page(items=page.items, next_cursor=last, truncated=page.truncated)


def _position(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 20 and int(cursor) <= _LAST):
        raise Invalid(
            "This is no position in a journal.",
            field="after",
            expected="next_cursor of the page before, or the cursor of an event",
            hint="Leave it out to start from the beginning.",
        )
    return int(cursor)
