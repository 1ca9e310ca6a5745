"""Loads the state that a batch of commands needs, with one statement per table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from datetime import timedelta
from functools import cache
from typing import Any

from msgspec import Raw
from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    column,
    func,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.types import JSON

from models.access.session_glob import like_pattern
from models.field_types import UNFINISHED
from models.tables import AGENTS, ARTIFACTS, CHUNKS, MEMORIES, METADATA, TASKS
from sessions.rules.dispatch import ReadSet, Recipient
from sessions.rules.lifecycle import OPEN_TASKS
from sessions.rules.records import RECORDS, Agent, Key, Record, Stats
from sessions.rules.state import GENERAL, ONLINE_SECONDS, Lane, LastChunk, State

_TABLES: dict[str, Table] = {name: METADATA.tables[name] for name in RECORDS}


def load(connection: Connection, wanted: ReadSet) -> State:
    """Load the requested records that exist, with counts, and the queues of delegated tasks."""
    records: list[Record] = []
    for name in _TABLES:
        keys = [key for key in wanted.keys - wanted.held if key[0] == name]
        records += _load_records(connection, name, keys)
    records += _load_held(connection, sorted(wanted.held))
    known = {record.key for record in records}
    if wanted.open_tasks:
        known = {record.key for record in records}
        records += (record for record in _load_open_tasks(connection, wanted.open_tasks) if record.key not in known)
    recipients = {recipient for group in wanted.recipients.values() for recipient in group}
    records += (record for record in _load_alike(connection, wanted.descriptions) if record.key not in known)
    return State(
        records,
        stats=load_stats(connection, wanted.stats),
        agents=_load_agents(connection, _names_of(recipients)),
        online_types=_count_online(connection, _types_of(recipients)),
        queues={glob: _load_queue(connection, glob, recipients) for glob, recipients in wanted.recipients.items()},
        last_chunks=_load_last_chunks(connection, wanted.conversations),
        alike=_count_alike(connection, wanted.descriptions),
    )


def load_stats(connection: Connection, session_ids: Iterable[str]) -> dict[str, Stats]:
    """Return the counts of each session's contents."""
    stats = {session_id: Stats() for session_id in session_ids}
    if not stats:
        return stats
    for name, counts in _select_counts().items():
        for session_id, count, *more in connection.execute(counts, {"session_ids": list(stats)}):
            setattr(stats[session_id], name, count)
            if more:
                stats[session_id].active_tasks = more[0]
    return stats


@cache
def _select_counts() -> dict[str, Select[Any]]:
    """Return, for each count, the statement for the sessions of the list session_ids."""
    wanted = func.unnest(_texts("session_ids")).column_valued("wanted")
    active = func.count().filter(TASKS.c.status.in_(UNFINISHED))
    counted: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
        ("conversation_chunks", CHUNKS.c, ()),
        ("memories", MEMORIES.c, ()),
        ("tasks", TASKS.c, (active,)),
        ("artifacts", ARTIFACTS.c, ()),
    )
    return {
        name: select(row.session_id, func.count(), *extra)
        .where(row.session_id.in_(select(wanted)))
        .group_by(row.session_id)
        for name, row, extra in counted
    }


def _load_held(connection: Connection, keys: list[Key]) -> list[Record]:
    """Load and lock tasks until the transaction ends, so that whole rows can be written back."""
    return _load_records(connection, "tasks", keys, locked=True)


def _load_records(connection: Connection, name: str, keys: list[Key], *, locked: bool = False) -> list[Record]:
    if not keys:
        return []
    parts = zip(*(key[1:] for key in keys), strict=True)
    rows = connection.execute(
        _select(name, locked=locked), {f"k{number}": list(part) for number, part in enumerate(parts)}
    )
    return _make_records(name, rows)


@cache
def _select(name: str, *, locked: bool) -> Select[Any]:
    """Return the statement for records by their keys, whose parts are the lists k0, k1 and so on."""
    table = _TABLES[name]
    primary = list(table.primary_key.columns)
    names = [f"k{number}" for number in range(len(primary))]
    parts = [_texts(part) for part in names]
    wanted = func.unnest(*parts).table_valued(*(column(part, Text) for part in names)).render_derived()
    matches = and_(*(key == wanted.c[part] for key, part in zip(primary, names, strict=True)))
    if locked:
        joined = select(*_columns(name)).select_from(table.join(wanted, matches))
        return joined.order_by(*primary).with_for_update(of=table, key_share=True)
    # For many keys the planner would rather read all of a table with less than 100,000 rows than join by its key.
    found = select(*_columns(name)).where(matches).limit(1).lateral("found")
    return select(*found.c).select_from(wanted.join(found, true()))


def _load_open_tasks(connection: Connection, session_ids: set[str]) -> list[Record]:
    """Load the first open tasks of each session."""
    rows = connection.execute(_select_open_tasks(), {"session_ids": sorted(session_ids)})
    return _make_records("tasks", rows)


@cache
def _select_open_tasks() -> Select[Any]:
    sessions = func.unnest(_texts("session_ids")).table_valued("session_id").render_derived("wanted")
    first = (
        select(*_columns("tasks"))
        .where(TASKS.c.session_id == sessions.c.session_id, TASKS.c.finished_at.is_(None))
        .order_by(TASKS.c.position)
        .limit(OPEN_TASKS)
        .lateral("first")
    )
    return select(*first.c).select_from(sessions.join(first, true()))


def _load_alike(connection: Connection, descriptions: set[tuple[str, str]]) -> list[Record]:
    """Load unfinished tasks with these descriptions, which may be recent duplicates."""
    if not descriptions:
        return []
    wanted = tuple_(TASKS.c.session_id, TASKS.c.description_hash).in_(
        bindparam("pairs", list(descriptions), expanding=True)
    )
    statement = select(*_columns("tasks")).where(wanted, TASKS.c.finished_at.is_(None))
    return _make_records("tasks", connection.execute(statement))


def _count_alike(connection: Connection, descriptions: set[tuple[str, str]]) -> Counter[tuple[str, str]]:
    if not descriptions:
        return Counter()
    pair = (TASKS.c.session_id, TASKS.c.description_hash)
    wanted = tuple_(*pair).in_(bindparam("pairs", list(descriptions), expanding=True))
    rows = connection.execute(select(*pair, func.count()).where(wanted).group_by(*pair))
    return Counter({(session_id, digest): count for session_id, digest, count in rows})


def _load_last_chunks(connection: Connection, session_ids: set[str]) -> dict[str, LastChunk]:
    if not session_ids:
        return {}
    rows = connection.execute(_select_last_chunks(), {"session_ids": list(session_ids)})
    found: dict[str, LastChunk] = {}
    for row in rows:
        before = found.get(row.session_id)
        found[row.session_id] = LastChunk(
            chunk_id=row.chunk_id,
            before_id=before.chunk_id if before else None,
            created_by=row.created_by,
            created_at=row.created_at,
        )
    return found


@cache
def _select_last_chunks() -> Select[Any]:
    wanted = func.unnest(_texts("session_ids")).column_valued("wanted")
    columns = (CHUNKS.c.chunk_id, CHUNKS.c.created_by, CHUNKS.c.created_at, CHUNKS.c.position)
    latest = select(*columns).where(CHUNKS.c.session_id == wanted).order_by(CHUNKS.c.position.desc()).limit(2)
    last = latest.lateral("last")
    return select(wanted.label("session_id"), *last.c).order_by(wanted, last.c.position)


def _names_of(recipients: Collection[Recipient]) -> list[str]:
    return sorted({recipient.agent_name for recipient in recipients if recipient.agent_name is not None})


def _types_of(recipients: Collection[Recipient]) -> list[str]:
    return sorted({recipient.task_type for recipient in recipients if recipient.agent_name is None})


def _load_agents(connection: Connection, names: list[str]) -> list[Agent]:
    if not names:
        return []
    columns = (AGENTS.c.name, AGENTS.c.type, AGENTS.c.last_seen_at)
    rows = connection.execute(select(*columns).where(AGENTS.c.name.in_(names)))
    return [Agent(name=name, type=kind, last_seen_at=seen) for name, kind, seen in rows]


def _count_online(connection: Connection, types: list[str]) -> dict[str, int]:
    """Count the recently seen agents of each type, including those that accept all types. Agents are counted, not
    loaded, since their number is unlimited."""
    if not types:
        return {}
    since = func.now() - timedelta(seconds=ONLINE_SECONDS)
    online = (AGENTS.c.type.in_({*types, GENERAL}), AGENTS.c.last_seen_at >= since)
    counts = select(AGENTS.c.type, func.count().label("number")).where(*online).group_by(AGENTS.c.type)
    return {row.type: row.number for row in connection.execute(counts)}


def _load_queue(connection: Connection, session_glob: str | None, recipients: Collection[Recipient]) -> Counter[Lane]:
    what = (TASKS.c.agent_name, TASKS.c.task_type, TASKS.c.priority)
    named = TASKS.c.agent_name.in_(_names_of(recipients))
    unnamed = and_(TASKS.c.agent_name.is_(None), TASKS.c.task_type.in_(_types_of(recipients)))
    statement = select(*what, func.count()).where(TASKS.c.status == "pending", or_(named, unnamed)).group_by(*what)
    if session_glob is not None:
        statement = statement.where(TASKS.c.session_id.like(like_pattern(session_glob), escape="\\"))
    return Counter({(agent, kind, priority): count for agent, kind, priority, count in connection.execute(statement)})


def _texts(name: str) -> ColumnElement[Any]:
    """Return a parameter for a list of texts."""
    return cast(bindparam(name, type_=ARRAY(Text)), ARRAY(Text))


def _columns(name: str) -> list[Column[Any]]:
    """Return the table's columns for the record's fields; JSON is selected as text to stay exactly as sent."""
    table = _TABLES[name]
    return [
        cast(table.c[field], Text).label(field) if isinstance(table.c[field].type, JSON) else table.c[field]  # type: ignore[misc]
        for field in RECORDS[name].__struct_encode_fields__
    ]


def _make_records(name: str, rows: Iterable[Row[Any]]) -> list[Record]:
    """Make records of rows with the columns of `_columns`."""
    kind = RECORDS[name]
    texts = _json_fields(name)
    records: list[Record] = []
    for row in rows:
        values: dict[str, Any] = dict(zip(kind.__struct_fields__, row, strict=True))
        for field in texts:
            if (value := values[field]) is not None:
                values[field] = Raw(value.encode())
        records.append(kind(**values))
    return records


@cache
def _json_fields(name: str) -> list[str]:
    kind, columns = RECORDS[name], _TABLES[name].c
    fields = zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True)
    return [field for field, encoded in fields if isinstance(columns[encoded].type, JSON)]
