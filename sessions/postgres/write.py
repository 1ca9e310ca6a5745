"""Writing the changes of a batch: one statement per table, the rows as one JSON parameter.

`json_to_recordset` keeps JSON columns as the text that was sent, and is many times faster than a row at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import JSON, Column, Connection, Table, TextClause, delete, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import dialect

from models.inbox import shard_of
from models.tables import Base, DeliveryRow, MemoryRow, SessionRow, TaskRow
from sessions.journal import REPLAYABLE, Delivery, Event
from sessions.postgres.locks import take_journal
from sessions.records import RECORDS
from sessions.state import Changes
from sessions.task_endings import SESSION_COMPLETED


def write_changes(connection: Connection, changes: Changes) -> None:
    """Write removals, then records, in an order in which each finds what it refers to."""
    sessions = [key[1] for key in changes.removed if key[0] == "sessions"]
    memories = [key[1:] for key in changes.removed if key[0] == "memories"]
    if sessions:
        # Who changes a task holds it first, and then needs its session for the journal: never the other way round.
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
    """Record what became of deliveries; one that was judged anew takes the place of what was recorded before."""
    if deliveries:
        _upsert(connection, "deliveries", deliveries, fields=Delivery.__struct_encode_fields__)


def write_events(connection: Connection, events: Sequence[Event]) -> None:
    """Append to journals. Must come last in a transaction: the lock keeps the order in which ids become visible."""
    if events:
        shards = sorted({shard_of(event.session_id) for event in events})
        for shard in shards:
            take_journal(connection, shard)
        _insert(connection, "events", events, fields=Event.__struct_encode_fields__)


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
    connection.execute(_statement(name, fields, True), {"rows": msgspec.json.encode(rows).decode()})


def _insert(connection: Connection, name: str, rows: Sequence[Any], *, fields: tuple[str, ...]) -> None:
    connection.execute(_statement(name, fields, False), {"rows": msgspec.json.encode(rows).decode()})


@cache
def _statement(name: str, fields: tuple[str, ...], replaces: bool) -> TextClause:
    table: Table = Base.metadata.tables[name]
    fields = tuple(field for field in fields if field in table.c)
    postgres = dialect()  # type: ignore[no-untyped-call]
    quoted = {field: postgres.identifier_preparer.quote(field) for field in fields}
    columns = ", ".join(quoted.values())
    types = ", ".join(f"{quoted[field]} {table.c[field].type.compile(postgres)}" for field in fields)
    values = ", ".join(_value_of(table.c[field], quoted[field]) for field in fields)
    source = f"json_to_recordset(CAST(:rows AS json)) AS r ({types})"
    statement = f"INSERT INTO {name} ({columns}) SELECT {values} FROM {source}"  # noqa: S608 - names of our own tables
    if replaces:
        keys = [column.name for column in table.primary_key.columns]
        updated = ", ".join(f"{quoted[field]} = excluded.{quoted[field]}" for field in fields if field not in keys)
        statement += f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {updated}"
    return text(statement)


def _value_of(column: Column[Any], quoted: str) -> str:
    """The column of the recordset, which makes SQL's of JSON's null: where there is always JSON, that is meant."""
    return f"COALESCE({quoted}, 'null')" if isinstance(column.type, JSON) and not column.nullable else quoted
