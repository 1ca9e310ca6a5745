"""Writes the changes of a batch with one statement per table, and all of these statements in one round trip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, delete, select, tuple_, update

from models.queue.inbox import shard_of
from models.tables import DELIVERIES, MEMORIES, METADATA, PASSAGES, SESSIONS, TASKS
from sessions.postgres.commands.locks import event_log_locks
from sessions.postgres.commands.passage_rows import row_of
from sessions.postgres.commands.row_parameters import quote_name, rows_of, texts_of
from sessions.rules.event_log import REPLAYABLE, Delivery, Event
from sessions.rules.records import RECORDS, Key, Record
from sessions.rules.state import Changes
from sessions.rules.task_endings import SESSION_COMPLETED
from sessions.search.passages import Passage, passages_of

MOVED = frozenset({"artifacts"})
"""Tables in which a changed row becomes the latest."""

_DELETE_PASSAGES = (
    "DELETE FROM passages p USING json_array_elements(CAST(%s AS json)) AS r"
    " WHERE p.session_id = r->>0 AND p.area = r->>1 AND p.item_id = r->>2"
)


class Insert(NamedTuple):
    """A statement with the parameters of its placeholders %s."""

    statement: str
    parameters: tuple[Any, ...] = ()


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
    records = [_upsert(name, rows[name]) for name in RECORDS if name in rows]
    replaced = [_place_of(key) for key, existed in changes.reworded.items() if existed]
    passages = [passage for key in changes.reworded for passage in passages_of(changes.put[key])]
    return [*records, *passage_inserts(passages, replaced=replaced)]


def passage_inserts(passages: Sequence[Passage], *, replaced: Collection[Key] = ()) -> list[Insert]:
    """Return the statements that write passages; `replaced` are records that may have passages already."""
    inserts = []
    if replaced:
        inserts.append(Insert(_DELETE_PASSAGES, (msgspec.json.encode(list(replaced)).decode(),)))
    if passages:
        rows = rows_of("passages", [row_of(passage) for passage in passages])
        statement = (
            f"WITH written AS (INSERT INTO passages ({_joined(rows.names)})"  # noqa: S608 - names of our own tables
            f" SELECT {_joined(rows.values)} RETURNING passage_id)"
            " INSERT INTO passages_to_embed (passage_id) SELECT passage_id FROM written"
        )
        inserts.append(Insert(statement, rows.parameters))
    return inserts


def insert_deliveries(deliveries: Sequence[Delivery]) -> list[Insert]:
    """Return the statement that records the outcomes of deliveries. A new decision replaces the earlier record."""
    return [_upsert("deliveries", deliveries)] if deliveries else []


def insert_events(events: Sequence[Event]) -> list[Insert]:
    """Return the statements that append events. Must be the last write of a transaction: the lock makes ids visible in
    order. An event's id is the larger of the current time and the session's last id, plus its number in the batch."""
    if not events:
        return []
    numbers: Counter[str] = Counter()
    places = []
    for event in events:
        numbers[event.session_id] += 1
        places.append(numbers[event.session_id])
    rows = rows_of("events", events)
    named = ", ".join(f"{value} AS {name}" for name, value in zip(rows.names, rows.values, strict=True))
    last = "(SELECT max(e.event_id) FROM events e WHERE e.session_id = r.session_id)"
    time = "CAST(extract(epoch FROM statement_timestamp()) * 1000000 AS bigint)"
    statement = (
        f"INSERT INTO events (event_id, {_joined(rows.names)})"  # noqa: S608 - names of our own tables
        f" SELECT greatest({last}, {time}) + r.place, {', '.join(f'r.{name}' for name in rows.names)}"
        f" FROM (SELECT unnest(CAST(%s AS integer[])) AS place, {named}) AS r"
    )
    shards = sorted({shard_of(event.session_id) for event in events})
    return [Insert(event_log_locks(shards)), Insert(statement, (texts_of(places), *rows.parameters))]


def write_events(connection: Connection, events: Sequence[Event]) -> None:
    """Append events, as the last write of a transaction."""
    send(connection, insert_events(events))


def send(connection: Connection, inserts: Sequence[Insert]) -> None:
    """Execute the statements in order, in one round trip. Each has the time limit of a statement for itself."""
    if inserts:
        parameters = tuple(parameter for insert in inserts for parameter in insert.parameters)
        connection.exec_driver_sql("; ".join(insert.statement for insert in inserts), parameters)


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


def _upsert(name: str, structs: Sequence[Record] | Sequence[Delivery]) -> Insert:
    rows = rows_of(name, structs)
    statement = (
        f"INSERT INTO {name} ({_joined(rows.names)}) SELECT {_joined(rows.values)}"
        f" ON CONFLICT {_replacement(name, rows.names)}"
    )
    return Insert(statement, rows.parameters)


@cache
def _replacement(name: str, names: tuple[str, ...]) -> str:
    """Return the keys of a table, and what replaces a row with the same keys."""
    keys = [quote_name(column.name) for column in METADATA.tables[name].primary_key.columns]
    updated = ", ".join(f"{field} = excluded.{field}" for field in names if field not in keys)
    if name in MOVED:
        updated += ", position = DEFAULT"
    return f"({', '.join(keys)}) DO UPDATE SET {updated}"


def _joined(parts: Sequence[str]) -> str:
    return ", ".join(parts)
