"""Writes the changes of a batch with one statement per table, the rows in one JSON parameter, and all of these
statements in one round trip.

`json_to_recordset` keeps the text of JSON columns exactly as sent, and is many times faster than single rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import JSON, Column, Connection, Table, delete, select, tuple_, update
from sqlalchemy.dialects.postgresql import dialect

from models.queue.inbox import shard_of
from models.tables import DELIVERIES, MEMORIES, METADATA, PASSAGES, SESSIONS, TASKS
from sessions.postgres.commands.locks import event_log_lock
from sessions.postgres.commands.passage_rows import PassageColumns, row_of
from sessions.rules.event_log import REPLAYABLE, Delivery, Event
from sessions.rules.records import RECORDS, Key, Record
from sessions.rules.state import Changes
from sessions.rules.task_endings import SESSION_COMPLETED
from sessions.search.passages import Passage, passages_of

MOVED = frozenset({"artifacts"})
"""Tables in which a changed row becomes the latest."""

_POSTGRES = dialect()  # type: ignore[no-untyped-call]


_DELETE_PASSAGES = (
    "DELETE FROM passages p USING json_array_elements(CAST(%s AS json)) AS r"
    " WHERE p.session_id = r->>0 AND p.area = r->>1 AND p.item_id = r->>2"
)


class Insert(NamedTuple):
    """A statement with its rows as JSON, for which it has the placeholder %s; some have none."""

    statement: str
    rows: str | None = None


def write_changes(connection: Connection, changes: Changes) -> None:
    """Write removals, then records in the order of their references."""
    write_removals(connection, changes)
    send(connection, insert_records(changes))


def write_removals(connection: Connection, changes: Changes) -> None:
    """Write removals and cancellations, which precede all other changes."""
    sessions = [key[1] for key in changes.removed if key[0] == "sessions"]
    memories = [key[1:] for key in changes.removed if key[0] == "memories"]
    if sessions:
        # Changes of a task lock the task first and its session, for the event log, second. Keep that order.
        connection.execute(select(TASKS.c.task_id).where(TASKS.c.session_id.in_(sessions)).with_for_update())
        connection.execute(delete(SESSIONS).where(SESSIONS.c.session_id.in_(sessions)))
        _forget_deliveries(connection, sessions)
    if memories:
        connection.execute(delete(MEMORIES).where(tuple_(MEMORIES.c.session_id, MEMORIES.c.key).in_(memories)))
        places = tuple_(PASSAGES.c.session_id, PASSAGES.c.area, PASSAGES.c.item_id)
        connection.execute(delete(PASSAGES).where(places.in_([(one, "memories", key) for one, key in memories])))
    if changes.cancelled:
        _cancel_open_tasks(connection, changes)


def insert_records(changes: Changes) -> list[Insert]:
    """Return the statements that write the changed records, in the order of their references."""
    rows: dict[str, list[Record]] = {}
    for key, record in changes.put.items():
        rows.setdefault(key[0], []).append(record)
    records = [_upsert(name, rows[name], RECORDS[name].__struct_encode_fields__) for name in RECORDS if name in rows]
    replaced = [_place_of(key) for key, existed in changes.reworded.items() if existed]
    passages = [passage for key in changes.reworded for passage in passages_of(changes.put[key])]
    return [*records, *passage_inserts(passages, replaced=replaced)]


def passage_inserts(passages: Sequence[Passage], *, replaced: Collection[Key] = ()) -> list[Insert]:
    """Return the statements that write passages; `replaced` are records that may have passages already."""
    inserts = [Insert(_DELETE_PASSAGES, _encode(list(replaced)))] if replaced else []
    if passages:
        inserts.append(Insert(_passages_statement(), _encode([row_of(passage) for passage in passages])))
    return inserts


def insert_deliveries(deliveries: Sequence[Delivery]) -> list[Insert]:
    """Return the statement that records the outcomes of deliveries. A new decision replaces the earlier record."""
    return [_upsert("deliveries", deliveries, Delivery.__struct_encode_fields__)] if deliveries else []


def insert_events(events: Sequence[Event]) -> list[Insert]:
    """Return the statements that append events. Must be the last write of a transaction: the lock makes ids visible in
    order."""
    if not events:
        return []
    locks = [Insert(event_log_lock(shard)) for shard in sorted({shard_of(event.session_id) for event in events})]
    return [*locks, Insert(_events_statement(Event.__struct_encode_fields__), _encode(events))]


def write_events(connection: Connection, events: Sequence[Event]) -> None:
    """Append events, as the last write of a transaction."""
    send(connection, insert_events(events))


def send(connection: Connection, inserts: Sequence[Insert]) -> None:
    """Execute the statements in order, in one round trip. Each has the time limit of a statement for itself."""
    if inserts:
        rows = tuple(insert.rows for insert in inserts if insert.rows is not None)
        connection.exec_driver_sql("; ".join(insert.statement for insert in inserts), rows)


def _place_of(key: Key) -> Key:
    """Return the session, area and id of a record's passages."""
    area = {"conversation_chunks": "conversations"}.get(key[0], key[0])
    return key[1], area, key[-1]


def _cancel_open_tasks(connection: Connection, changes: Changes) -> None:
    for session_id, at in changes.cancelled.items():
        moment = dict.fromkeys(("updated_at", "finished_at", "shown_at"), at)
        values = {"status": "cancelled", "cancel_reason": SESSION_COMPLETED, "lease_expires_at": None, **moment}
        open_ones = (TASKS.c.session_id == session_id, TASKS.c.finished_at.is_(None))
        connection.execute(update(TASKS).where(*open_ones).values(**values))


def _forget_deliveries(connection: Connection, session_ids: list[str]) -> None:
    of_session = DELIVERIES.c.session_id.in_(session_ids)
    connection.execute(delete(DELIVERIES).where(of_session, DELIVERIES.c.status.in_(REPLAYABLE)))
    connection.execute(update(DELIVERIES).where(of_session).values(response=None, command=""))


def _upsert(name: str, rows: Sequence[Any], fields: tuple[str, ...]) -> Insert:
    return Insert(_statement(name, fields), _encode(rows))


def _encode(rows: Sequence[Any]) -> str:
    return msgspec.json.encode(rows).decode()


class _Recordset(NamedTuple):
    """The SQL parts of a statement with rows as JSON."""

    names: list[str]
    types: str
    values: str


@cache
def _statement(name: str, fields: tuple[str, ...]) -> str:
    table: Table = METADATA.tables[name]
    names, types, values = _recordset(table, fields)
    keys = [_quote(column.name) for column in table.primary_key.columns]
    updated = ", ".join(f"{field} = excluded.{field}" for field in names if field not in keys)
    if name in MOVED:
        updated += ", position = DEFAULT"
    return (
        f"INSERT INTO {name} ({', '.join(names)})"  # noqa: S608 - names of our own tables
        f" SELECT {values} FROM json_to_recordset(CAST(%s AS json)) AS r ({types})"
        f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {updated}"
    )


@cache
def _passages_statement() -> str:
    names, types, values = _recordset(METADATA.tables["passages"], PassageColumns.__struct_encode_fields__)
    return (
        f"WITH written AS (INSERT INTO passages ({', '.join(names)})"  # noqa: S608 - names of our own tables
        f" SELECT {values} FROM json_to_recordset(CAST(%s AS json)) AS r ({types}) RETURNING passage_id)"
        " INSERT INTO passages_to_embed (passage_id) SELECT passage_id FROM written"
    )


@cache
def _events_statement(fields: tuple[str, ...]) -> str:
    """Give each event the larger of the current time and the session's last event id, plus its number in the batch."""
    names, types, values = _recordset(METADATA.tables["events"], fields)
    last = "(SELECT max(e.event_id) FROM events e WHERE e.session_id = r.session_id)"
    time = "CAST(extract(epoch FROM statement_timestamp()) * 1000000 AS bigint)"
    number = "row_number() OVER (PARTITION BY r.session_id ORDER BY r.place)"
    return (
        f"INSERT INTO events (event_id, {', '.join(names)})"  # noqa: S608 - names of our own tables
        f" SELECT greatest({last}, {time}) + {number}, {values}"
        f" FROM ROWS FROM (json_to_recordset(CAST(%s AS json)) AS ({types}))"
        f" WITH ORDINALITY AS r ({', '.join(names)}, place)"
    )


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
