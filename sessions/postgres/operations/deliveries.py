"""Deliveries in Postgres: recognizing repeats, and looking up the outcomes of webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from msgspec import Raw
from sqlalchemy import (
    ARRAY,
    Boolean,
    ColumnElement,
    Connection,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    column,
    func,
    or_,
    select,
    true,
    tuple_,
    update,
)

from models.access.session_glob import like_pattern
from models.commands.agent_commands import AGENT_COMMANDS
from models.commands.responses import MESSAGE_LENGTH, shorten
from models.queue.inbox import Entry
from models.tables import DELIVERIES, EVENTS
from models.timestamps import format_utc
from sessions.reads.pagination import RowPosition, decode_cursor, encode_cursor
from sessions.reads.results import Page
from sessions.rules.event_log import PriorDelivery, Said

MICROSECONDS = 1_000_000
CLOCK_TOLERANCE = timedelta(seconds=5)
LONGEST_TRANSACTION = timedelta(seconds=60)
"""Events are numbered by the time of writing, which follows the time of the decision within the same transaction."""
SHOWN_EVENTS = 20
LATEST_EVENTS = 50
"""Events of a session that are searched for its last change; rejections and agents' reports may follow it."""


def _part(*path: str) -> ColumnElement[str]:
    """Select a text of a response, truncated because malformed responses may be long."""
    return func.left(DELIVERIES.c.response.op("#>>")(cast(list(path), ARRAY(Text))), MESSAGE_LENGTH + 1)


_REFUSED = DELIVERIES.c.status.in_(("rejected", "parked", "failed"))
_CODE = case((_REFUSED, _part("error", "code"))).label("code")
_REASON = case((_REFUSED, _part("message")), (DELIVERIES.c.status == "ignored", _part())).label("reason")


def find_known(connection: Connection, entries: Sequence[Entry]) -> dict[tuple[str, str], PriorDelivery]:
    """Return earlier decisions on these entries, by source and delivery id. Includes responses of applied ones only if
    the sender waits for them, since these may be many and large."""
    waiting: dict[tuple[str, str], bool] = {}
    for entry in entries:
        identity = entry.source, entry.delivery_id
        waiting[identity] = entry.waits or waiting.get(identity, False)
    wanted = {
        "sources": [source for source, _ in waiting],
        "ids": [delivery_id for _, delivery_id in waiting],
        "waits": list(waiting.values()),
    }
    return {
        (source, delivery_id): PriorDelivery(
            hash=hash_,
            status=status,
            http_status=code,
            response=_raw(response),
            accepted_at=accepted_at,
        )
        for source, delivery_id, hash_, status, code, response, accepted_at in connection.execute(
            _select_known(), wanted
        )
    }


@cache
def _select_known() -> Select[Any]:
    """Return the statement for deliveries by their identities: the lists `sources`, `ids` and `waits`."""
    sources = cast(bindparam("sources", type_=ARRAY(Text)), ARRAY(Text))
    ids = cast(bindparam("ids", type_=ARRAY(Text)), ARRAY(Text))
    waits = cast(bindparam("waits", type_=ARRAY(Boolean)), ARRAY(Boolean))
    columns = (column("source", Text), column("id", Text), column("waits", Boolean))
    wanted = func.unnest(sources, ids, waits).table_valued(*columns).render_derived()
    same = and_(DELIVERIES.c.source == wanted.c.source, DELIVERIES.c.delivery_id == wanted.c.id)
    known = select(
        DELIVERIES.c.source,
        DELIVERIES.c.delivery_id,
        DELIVERIES.c.hash,
        DELIVERIES.c.status,
        DELIVERIES.c.http_status,
        case((or_(wanted.c.waits, DELIVERIES.c.status != "applied"), cast(DELIVERIES.c.response, Text))).label(
            "response"
        ),
        DELIVERIES.c.accepted_at,
    )
    # For many ids the planner would rather read all of a table with less than 100,000 rows than join by its key.
    found = known.where(same).limit(1).lateral("found")
    return select(*found.c).select_from(wanted.join(found, true()))


def last_said(connection: Connection, entries: Sequence[Entry]) -> dict[str, Said]:
    """Return, per session, the last change in its event log, without agents' reports, if it has the content of one of
    these entries."""
    wanted = {(entry.session_id, entry.hash) for entry in entries if entry.session_id}
    if not wanted:
        return {}
    sessions, hashes = (cast(list(values), ARRAY(Text)) for values in zip(*wanted, strict=True))
    asked = func.unnest(sessions, hashes).table_valued(column("session_id", Text), column("hash", Text))
    asked = asked.render_derived("asked")
    latest = (
        select(EVENTS.c.event_id, EVENTS.c.source, EVENTS.c.delivery_id, EVENTS.c.event, EVENTS.c.status)
        .where(EVENTS.c.session_id == asked.c.session_id)
        .order_by(EVENTS.c.event_id.desc())
        .limit(LATEST_EVENTS)
        .correlate(asked)
        .subquery()
    )
    last = (
        select(latest.c.source, latest.c.delivery_id)
        .where(
            latest.c.status == "applied",
            latest.c.delivery_id.is_not(None),
            latest.c.event.not_in(AGENT_COMMANDS.keys()),
        )
        .order_by(latest.c.event_id.desc())
        .limit(1)
        .lateral("last")
    )
    statement = select(
        asked.c.session_id,
        DELIVERIES.c.source,
        DELIVERIES.c.hash,
        DELIVERIES.c.accepted_at,
        cast(DELIVERIES.c.response, Text),
    ).where(
        DELIVERIES.c.source == last.c.source,
        DELIVERIES.c.delivery_id == last.c.delivery_id,
        DELIVERIES.c.hash == asked.c.hash,
        DELIVERIES.c.response.is_not(None),
    )
    return {
        session_id: Said(source=source, hash=hash_, at=at, response=Raw(response.encode()))
        for session_id, source, hash_, at, response in connection.execute(statement)
    }


def record_conflict(connection: Connection, entry: Entry, at: datetime) -> None:
    """Record that the delivery id was reused with other content, which was not applied."""
    connection.execute(
        update(DELIVERIES)
        .where(DELIVERIES.c.source == entry.source, DELIVERIES.c.delivery_id == entry.delivery_id)
        .values(conflicts=DELIVERIES.c.conflicts + 1, last_conflict_at=at)
    )


def set_apart(connection: Connection, entry: Entry, accepted_at: datetime) -> None:
    """Append the acceptance time to the id of the earlier delivery, so that the entry can use its id."""
    connection.execute(
        update(DELIVERIES)
        .where(DELIVERIES.c.source == entry.source, DELIVERIES.c.delivery_id == entry.delivery_id)
        .values(delivery_id=f"{entry.delivery_id}.{accepted_at:%Y%m%dT%H%M%S%f}")
    )


def recently_forgotten(
    connection: Connection, session_ids: Sequence[str], *, seconds: int
) -> list[tuple[str, str, str]]:
    """Return source, id and hash of deliveries of deleted sessions whose outcomes Redis may still hold."""
    statement = select(DELIVERIES.c.source, DELIVERIES.c.delivery_id, DELIVERIES.c.hash).where(
        DELIVERIES.c.session_id.in_(session_ids),
        DELIVERIES.c.command == "",
        DELIVERIES.c.decided_at > func.now() - timedelta(seconds=seconds),
    )
    return [(row.source, row.delivery_id, row.hash) for row in connection.execute(statement)]


def find_delivery(connection: Connection, *, source: str, delivery_id: str) -> dict[str, Any] | None:
    """Return the outcome of a delivery with the `hash` of its content, or None if it is undecided."""
    response = cast(DELIVERIES.c.response, Text).label("response")
    statement = _select(response).where(DELIVERIES.c.source == source, DELIVERIES.c.delivery_id == delivery_id)
    row = connection.execute(statement).one_or_none()
    if row is None:
        return None
    described = _describe(row._mapping)
    if row.response is not None:
        name = {"applied": "result", "ignored": "reason"}.get(row.status, "error")
        described[name] = Raw(row.response.encode())
    return described | {"hash": row.hash}


def list_deliveries(
    connection: Connection,
    *,
    status: str | None,
    session_id: str | None,
    session_glob: str | None,
    own_source: str,
    source: str | None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int,
    cursor: str | None,
) -> Page:
    """List decided deliveries, the newest first, without results, and with only the code and message of errors; those
    that were decided from `since` on and before `until`. With either, they are in the order of their decisions, so that
    only deliveries of that time are looked at; a replayed one is decided again, but keeps its position.

    A pattern limits them to the sessions that it allows. Of deliveries without a session it then includes only those of
    the reader's own source, since the responses of others may concern any session. Raises Invalid for an invalid
    cursor.
    """
    is_by_time = since is not None or until is not None
    keys = (DELIVERIES.c.decided_at, DELIVERIES.c.position) if is_by_time else (DELIVERIES.c.position,)
    statement = _select(_CODE, _REASON).order_by(*(key.desc() for key in keys)).limit(limit + 1)
    if status is not None:
        statement = statement.where(DELIVERIES.c.status == status)
    if session_id is not None:
        statement = statement.where(DELIVERIES.c.session_id == session_id)
    if session_glob is not None:
        within = DELIVERIES.c.session_id.like(like_pattern(session_glob), escape="\\")
        own = and_(DELIVERIES.c.session_id.is_(None), DELIVERIES.c.source == own_source)
        statement = statement.where(or_(own, within))
    if source is not None:
        statement = statement.where(DELIVERIES.c.source == source)
    if since is not None:
        statement = statement.where(DELIVERIES.c.decided_at >= since)
    if until is not None:
        statement = statement.where(DELIVERIES.c.decided_at < until)
    if is_by_time and (last := decode_cursor(cursor, tuple[datetime, RowPosition])):
        statement = statement.where(DELIVERIES.c.decided_at <= last[0], tuple_(*keys) < last)
    elif not is_by_time and (before := decode_cursor(cursor, RowPosition)) is not None:
        statement = statement.where(DELIVERIES.c.position < before)
    rows = connection.execute(statement).all()
    items = [_summarize(row._mapping) for row in rows[:limit]]
    if len(rows) <= limit:
        return Page(items=items)
    end = rows[limit - 1]
    position = (end.decided_at.astimezone(UTC), end.position) if is_by_time else end.position
    return Page(items=items, next_cursor=encode_cursor(position))


def events_of_delivery(
    connection: Connection, *, session_id: str, source: str, delivery_id: str, decided_at: datetime
) -> list[dict[str, Any]]:
    """Return the events of a delivery in its session's journal, in their order. Looks only at those of the time of its
    decision, since a journal may be long."""
    first = int((decided_at - CLOCK_TOLERANCE).timestamp() * MICROSECONDS)
    last = int((decided_at + LONGEST_TRANSACTION).timestamp() * MICROSECONDS)
    statement = (
        select(EVENTS.c.event, EVENTS.c.status, EVENTS.c.message, EVENTS.c.created_at)
        .where(
            EVENTS.c.session_id == session_id,
            EVENTS.c.event_id.between(first, last),
            EVENTS.c.source == source,
            EVENTS.c.delivery_id == delivery_id,
        )
        .order_by(EVENTS.c.event_id)
        .limit(SHOWN_EVENTS)
    )
    return [
        {"event": row.event, "status": row.status, "message": row.message, "at": format_utc(row.created_at)}
        for row in connection.execute(statement)
    ]


def _select(*more: ColumnElement[Any]) -> Any:
    return select(
        DELIVERIES.c.position,
        DELIVERIES.c.delivery_id,
        DELIVERIES.c.source,
        DELIVERIES.c.hash,
        DELIVERIES.c.status,
        DELIVERIES.c.command,
        DELIVERIES.c.session_id,
        DELIVERIES.c.accepted_at,
        DELIVERIES.c.decided_at,
        DELIVERIES.c.conflicts,
        DELIVERIES.c.last_conflict_at,
        *more,
    )


def _describe(row: Any) -> dict[str, Any]:
    described = {
        "delivery_id": row["delivery_id"],
        "source": row["source"],
        "status": row["status"],
        "command": row["command"],
        "session_id": row["session_id"],
        "accepted_at": format_utc(row["accepted_at"]),
        "decided_at": format_utc(row["decided_at"]),
    }
    if row["conflicts"]:
        described |= {"conflicts": row["conflicts"], "last_conflict_at": format_utc(row["last_conflict_at"])}
    return described


def _summarize(row: Any) -> dict[str, Any]:
    error = {"code": row["code"], "reason": row["reason"] and shorten(row["reason"])}
    return _describe(row) | {name: value for name, value in error.items() if value is not None}


def _raw(text: str | None) -> Raw | None:
    return None if text is None else Raw(text.encode())
