"""Dead letters: deliveries that failed, with the entry that is replayed and why it failed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Text, and_, cast, null, select, update

from models.errors import Rejected
from models.inbox import Entry
from models.responses import failure
from models.tables import DeliveryRow
from models.timestamps import format_utc
from sessions.answers import Page
from sessions.postgres.paging import RowPosition, decode_cursor, encode_cursor

Identity = tuple[str, str]
"""Source and delivery id."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters; what is not given is any."""

    source: str | None = None
    delivery_id: str | None = None
    session_id: str | None = None
    command: str | None = None

    def condition(self) -> ColumnElement[bool]:
        """As a condition on deliveries."""
        given = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return and_(DeliveryRow.status == "failed", *(getattr(DeliveryRow, name) == given[name] for name in given))


def failed_deliveries(connection: Connection, *, limit: int) -> dict[Identity, str]:
    """The oldest dead letters, with their tracebacks."""
    columns = (DeliveryRow.source, DeliveryRow.delivery_id, DeliveryRow.traceback)
    statement = select(*columns).where(Wanted().condition()).order_by(DeliveryRow.position).limit(limit)
    return {(source, delivery_id): trace or "" for source, delivery_id, trace in connection.execute(statement)}


def list_dead_letters(connection: Connection, wanted: Wanted, *, limit: int, cursor: str | None) -> Page:
    """Dead letters, the oldest first, without payload. Raises Invalid for a cursor that is none."""
    statement = _select().where(wanted.condition()).order_by(DeliveryRow.position).limit(limit + 1)
    if (after := decode_cursor(cursor, RowPosition)) is not None:
        statement = statement.where(DeliveryRow.position > after)
    rows = connection.execute(statement).all()
    more = encode_cursor(rows[limit - 1].position) if len(rows) > limit else None
    return Page(items=[_describe(row) for row in rows[:limit]], next_cursor=more)


def find_dead_letter(connection: Connection, wanted: Wanted) -> dict[str, Any] | None:
    """One dead letter with its payload and traceback, or None."""
    row = connection.execute(_select().where(wanted.condition())).one_or_none()
    if row is None:
        return None
    entry = msgspec.json.decode(row.entry, type=Entry)
    return _describe(row) | {"payload": entry.data, "traceback": row.traceback}


def entries_to_replay(connection: Connection, wanted: Wanted, *, limit: int) -> list[Entry]:
    """The entries of dead letters, the oldest first, as they are to be pushed once more."""
    entry = cast(DeliveryRow.entry, Text)
    statement = select(entry).where(wanted.condition()).order_by(DeliveryRow.position).limit(limit)
    entries = (msgspec.json.decode(text, type=Entry) for text in connection.scalars(statement))
    return [msgspec.structs.replace(entry, replays=True, waits=False) for entry in entries]


def discard(connection: Connection, wanted: Wanted, *, at: datetime) -> bool:
    """Give up a dead letter: it stays known as a rejected delivery, without its payload. Says whether it was one."""
    row = connection.execute(_select().where(wanted.condition()).with_for_update()).one_or_none()
    if row is None:
        return False
    error = Rejected("It could not be applied, and an operator has discarded it.", code="discarded")
    body = failure(error, command=row.command, session_id=row.session_id, delivery_id=row.delivery_id, now=at)
    connection.execute(
        update(DeliveryRow)
        .where(DeliveryRow.source == row.source, DeliveryRow.delivery_id == row.delivery_id)
        .values(
            status="rejected",
            http_status=error.status,
            response=body,
            entry=null(),
            traceback=null(),
            decided_at=at,
        )
    )
    return True


def _select() -> Any:
    names: Sequence[str] = ("position", "source", "delivery_id", "command", "session_id", "accepted_at", "decided_at")
    columns = [getattr(DeliveryRow, name) for name in names]
    return select(*columns, DeliveryRow.traceback, cast(DeliveryRow.entry, Text).label("entry"))


def _describe(row: Any) -> dict[str, Any]:
    lines = (row.traceback or "").strip().splitlines()
    return {
        "delivery_id": row.delivery_id,
        "source": row.source,
        "command": row.command,
        "session_id": row.session_id,
        "accepted_at": format_utc(row.accepted_at),
        "failed_at": format_utc(row.decided_at),
        "reason": lines[-1] if lines else "",
    }
