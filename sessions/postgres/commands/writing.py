"""Writes the changes of a batch with one statement per table, the rows in one JSON parameter.

`json_to_recordset` keeps the text of JSON columns exactly as sent, and is many times faster than single rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import JSON, Column, Connection, Table, TextClause, delete, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import dialect

from models.queue.inbox import shard_of
from models.tables import Base, DeliveryRow, MemoryRow, SessionRow, TaskRow
from sessions.postgres.commands.locks import lock_event_log
from sessions.rules.event_log import REPLAYABLE, Delivery, Event
from sessions.rules.records import RECORDS
from sessions.rules.state import Changes
from sessions.rules.task_endings import SESSION_COMPLETED

_POSTGRES = dialect()  # type: ignore[no-untyped-call]


def write_changes(connection: Connection, changes: Changes) -> None:
    """Write removals, then records in the order of their references."""
    sessions = [key[1] for key in changes.removed if key[0] == "sessions"]
    memories = [key[1:] for key in changes.removed if key[0] == "memories"]
    if sessions:
        # Changes of a task lock the task first and its session, for the event log, second. Keep that order.
        connection.execute(select(TaskRow.task_id).where(TaskRow.session_id.in_(sessions)).with_for_update())
        connection.execute(delete(SessionRow).where(SessionRow.session_id.in_(sessions)))
        _forget_deliveries(connection, sessions)
    if memories:
        connection.execute(delete(MemoryRow).where(tuple_(MemoryRow.session_id, MemoryRow.key).in_(memories)))
    if changes.cancelled:
        _cancel_open_tasks(connection, changes)
    for name in RECORDS:
        rows = [record for key, record in changes.put.items() if key[0] == name]
        if rows:
            _upsert(connection, name, rows, fields=RECORDS[name].__struct_encode_fields__)


def write_deliveries(connection: Connection, deliveries: Sequence[Delivery]) -> None:
    """Record the outcomes of deliveries. A new decision replaces the earlier record."""
    if deliveries:
        _upsert(connection, "deliveries", deliveries, fields=Delivery.__struct_encode_fields__)


def write_events(connection: Connection, events: Sequence[Event]) -> None:
    """Append events. Must be the last write of a transaction: its lock makes ids visible in order."""
    if events:
        shards = sorted({shard_of(event.session_id) for event in events})
        for shard in shards:
            lock_event_log(connection, shard)
        rows = msgspec.json.encode(events).decode()
        connection.execute(_events_statement(Event.__struct_encode_fields__), {"rows": rows})


def _cancel_open_tasks(connection: Connection, changes: Changes) -> None:
    for session_id, at in changes.cancelled.items():
        moment = dict.fromkeys(("updated_at", "finished_at", "shown_at"), at)
        values = {"status": "cancelled", "cancel_reason": SESSION_COMPLETED, "lease_expires_at": None, **moment}
        open_ones = (TaskRow.session_id == session_id, TaskRow.finished_at.is_(None))
        connection.execute(update(TaskRow).where(*open_ones).values(**values))


def _forget_deliveries(connection: Connection, session_ids: list[str]) -> None:
    of_session = DeliveryRow.session_id.in_(session_ids)
    connection.execute(delete(DeliveryRow).where(of_session, DeliveryRow.status.in_(REPLAYABLE)))
    connection.execute(update(DeliveryRow).where(of_session).values(response=None, command=""))


def _upsert(connection: Connection, name: str, rows: Sequence[Any], *, fields: tuple[str, ...]) -> None:
    connection.execute(_statement(name, fields), {"rows": msgspec.json.encode(rows).decode()})


class _Recordset(NamedTuple):
    """The SQL parts of a statement with rows as JSON."""

    names: list[str]
    types: str
    values: str


@cache
def _statement(name: str, fields: tuple[str, ...]) -> TextClause:
    table: Table = Base.metadata.tables[name]
    names, types, values = _recordset(table, fields)
    keys = [_quote(column.name) for column in table.primary_key.columns]
    updated = ", ".join(f"{field} = excluded.{field}" for field in names if field not in keys)
    statement = (
        f"INSERT INTO {name} ({', '.join(names)})"  # noqa: S608 - names of our own tables
        f" SELECT {values} FROM json_to_recordset(CAST(:rows AS json)) AS r ({types})"
        f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {updated}"
    )
    return text(statement)


@cache
def _events_statement(fields: tuple[str, ...]) -> TextClause:
    """Give each event the larger of the current time and the session's last event id, plus its number in the batch."""
    names, types, values = _recordset(Base.metadata.tables["events"], fields)
    last = "(SELECT max(e.event_id) FROM events e WHERE e.session_id = r.session_id)"
    time = "CAST(extract(epoch FROM statement_timestamp()) * 1000000 AS bigint)"
    number = "row_number() OVER (PARTITION BY r.session_id ORDER BY r.place)"
    statement = (
        f"INSERT INTO events (event_id, {', '.join(names)})"  # noqa: S608 - names of our own tables
        f" SELECT greatest({last}, {time}) + {number}, {values}"
        f" FROM ROWS FROM (json_to_recordset(CAST(:rows AS json)) AS ({types}))"
        f" WITH ORDINALITY AS r ({', '.join(names)}, place)"
    )
    return text(statement)


def _recordset(table: Table, fields: tuple[str, ...]) -> _Recordset:
    known = [field for field in fields if field in table.c]
    types = ", ".join(f"{_quote(field)} {table.c[field].type.compile(_POSTGRES)}" for field in known)
    values = ", ".join(_value_of(table.c[field], _quote(field)) for field in known)
    return _Recordset([_quote(field) for field in known], types, values)


def _quote(name: str) -> str:
    quoted: str = _POSTGRES.identifier_preparer.quote(name)
    return quoted


def _value_of(column: Column[Any], quoted: str) -> str:
    """Return the recordset's column. It converts JSON null to SQL NULL; in non-nullable columns this restores it."""
    return f"COALESCE({quoted}, 'null')" if isinstance(column.type, JSON) and not column.nullable else quoted
