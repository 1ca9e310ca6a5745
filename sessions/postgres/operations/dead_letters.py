"""Dead letters (failed deliveries) and parked events (refused by their session), with their reasons and entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, Text, and_, cast, func, select

from models.access.session_glob import like_pattern
from models.commands.responses import shorten
from models.queue.inbox import DeadLetterResolution, Entry, Identity
from models.tables import DELIVERIES
from models.timestamps import format_utc
from sessions.reads.pagination import RowPosition, decode_cursor, encode_cursor
from sessions.reads.results import Page
from sessions.rules.event_log import REPLAYABLE

REASON_LENGTH = 500
"""Characters of the last line of a traceback, which may quote anything."""

_ENTRY = cast(DELIVERIES.c.entry, Text).label("entry")


class DeadLetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Selects dead letters or parked events; None matches all."""

    status: Literal["failed", "parked"] | None = None
    source: str | None = None
    delivery_id: str | None = None
    session_id: str | None = None
    command: str | None = None
    session_glob: str | None = None
    """Only sessions that match the pattern."""

    def condition(self) -> ColumnElement[bool]:
        """Return the filter as a condition on deliveries."""
        given = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        glob = given.pop("session_glob", None)
        within = [] if glob is None else [DELIVERIES.c.session_id.like(like_pattern(glob), escape="\\")]
        same = (DELIVERIES.c[name] == value for name, value in given.items())
        return and_(DELIVERIES.c.status.in_(REPLAYABLE), *within, *same)


class FailedDelivery(NamedTuple):
    """A dead letter without its payload."""

    command: str
    session_id: str | None
    trace: str


def failed_deliveries(connection: Connection, *, limit: int) -> dict[Identity, FailedDelivery]:
    """Return the oldest dead letters."""
    names = ("source", "delivery_id", "command", "session_id", "traceback")
    columns = [DELIVERIES.c[name] for name in names]
    statement = (
        select(*columns)
        .where(DeadLetterFilter(status="failed").condition())
        .order_by(DELIVERIES.c.position)
        .limit(limit)
    )
    return {
        (source, delivery_id): FailedDelivery(command or "", session_id, trace or "")
        for source, delivery_id, command, session_id, trace in connection.execute(statement)
    }


def list_dead_letters(connection: Connection, wanted: DeadLetterFilter, *, limit: int, cursor: str | None) -> Page:
    """List dead letters, the oldest first, without payload. Raises Invalid for an invalid cursor."""
    end = func.right(func.rtrim(DELIVERIES.c.traceback), REASON_LENGTH + 1).label("traceback")
    rows = connection.execute(_page(_select(end), wanted, limit=limit, cursor=cursor)).all()
    return Page(items=[_describe(row) for row in rows[:limit]], next_cursor=_next_cursor(rows, limit))


def find_dead_letter(connection: Connection, wanted: DeadLetterFilter) -> dict[str, Any] | None:
    """Return a dead letter with its payload and traceback, or None."""
    row = connection.execute(_select(DELIVERIES.c.traceback, _ENTRY).where(wanted.condition())).one_or_none()
    if row is None:
        return None
    entry = msgspec.json.decode(row.entry, type=Entry)
    return _describe(row) | {"payload": entry.data, "traceback": row.traceback}


def entries_to_rule(
    connection: Connection,
    wanted: DeadLetterFilter,
    resolution: DeadLetterResolution,
    *,
    limit: int = 1,
    cursor: str | None = None,
) -> tuple[list[Entry], str | None]:
    """Return entries of dead letters to push again, the oldest first, and the next cursor. Each entry may be as large
    as a webhook. Raises Invalid for an invalid cursor."""
    rows = connection.execute(_page(_select(_ENTRY), wanted, limit=limit, cursor=cursor)).all()
    ruled = [
        # The id may have changed since, because another event had the same content.
        msgspec.structs.replace(
            msgspec.json.decode(row.entry, type=Entry), delivery_id=row.delivery_id, resolution=resolution, waits=False
        )
        for row in rows[:limit]
    ]
    return ruled, _next_cursor(rows, limit)


def parked_by(connection: Connection, source: str) -> tuple[int, int]:
    """Return the number of parked events of a source, and their size in the database in bytes."""
    size = func.coalesce(func.sum(func.pg_column_size(DELIVERIES.c.entry)), 0)
    statement = select(func.count(), size).where(DELIVERIES.c.status == "parked", DELIVERIES.c.source == source)
    count, total = connection.execute(statement).one()
    return int(count), int(total)


def parked_in(connection: Connection, session_id: str) -> int:
    """Return the number of parked events of a session."""
    parked = select(func.count()).where(DELIVERIES.c.status == "parked", DELIVERIES.c.session_id == session_id)
    return connection.scalar(parked) or 0


def _select(*more: Any) -> Select[Any]:
    names = ("position", "source", "delivery_id", "status", "command", "session_id", "accepted_at", "decided_at")
    message = DELIVERIES.c.response["error"]["message"].as_string().label("message")
    return select(*(DELIVERIES.c[name] for name in names), message, *more)


def _page(statement: Select[Any], wanted: DeadLetterFilter, *, limit: int, cursor: str | None) -> Select[Any]:
    """Select one row more than the limit, to detect a further page."""
    after = decode_cursor(cursor, RowPosition)
    condition = wanted.condition() if after is None else and_(wanted.condition(), DELIVERIES.c.position > after)
    return statement.where(condition).order_by(DELIVERIES.c.position).limit(limit + 1)


def _next_cursor(rows: Sequence[Row[Any]], limit: int) -> str | None:
    return encode_cursor(rows[limit - 1].position) if len(rows) > limit else None


def _describe(row: Row[Any]) -> dict[str, Any]:
    lines = (row.traceback or "").strip().splitlines()
    return {
        "delivery_id": row.delivery_id,
        "source": row.source,
        "status": row.status,
        "command": row.command,
        "session_id": row.session_id,
        "accepted_at": format_utc(row.accepted_at),
        "failed_at": format_utc(row.decided_at),
        "reason": shorten(lines[-1] if lines else row.message or "", REASON_LENGTH),
    }
