"""Leases in Postgres: extending, starting and releasing claims, and requeuing tasks whose lease expired.

Locks are acquired in the order task, event log. Sessions are not locked.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import Raw
from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Row,
    Text,
    case,
    cast,
    delete,
    func,
    literal,
    or_,
    select,
    update,
)

from models.commands.responses import make_title
from models.queue.task_notifications import Claimable, ClaimToken, TaskNotification
from models.tables import AGENTS, TASKS, titled
from sessions.postgres.commands.writing import write_events
from sessions.postgres.tasks.dependent_tasks import fail_dependents
from sessions.rules.claims import claim_lost
from sessions.rules.event_log import Event
from sessions.rules.task_endings import SWEEPER

SEEN_SECONDS = 10
"""Heartbeats are recorded only if the last one is older, since writing one for every claim costs too much."""
RETURNED_AT_ONCE = 500
UNREGISTERED_SECONDS = 86_400
MOST_UNREGISTERED = 1_000
"""Unregistered agents to keep: more than people read, and few enough to count for each delegated task."""
LOST = "The agent stopped responding on the last allowed attempt."

NOW = func.clock_timestamp()
"""Leases run from the time of the grant, not from the start of a transaction that waited for a lock."""


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a task for the holder of its claim token."""

    session_id: str
    task_id: str
    status: str
    attempt: int
    lease_expires_at: datetime | None
    claimed_by: str | None


class LeaseCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of leases."""

    held: int
    overdue: int
    """Those that have expired, but were not returned."""


def count_leases(connection: Connection) -> LeaseCounts:
    """Count the tasks that are claimed now."""
    is_overdue = TASKS.c.lease_expires_at < func.now()
    held, overdue = connection.execute(
        select(func.count(), func.count().filter(is_overdue)).where(TASKS.c.lease_expires_at.is_not(None))
    ).one()
    return LeaseCounts(held=held, overdue=overdue)


def extend(
    connection: Connection, claim: ClaimToken, *, lease_seconds: int | None = None, progress: bytes | None = None
) -> Lease:
    """Extend the lease and store the progress. Restores an expired lease unless another agent has claimed the task;
    only returns the state of a task that is finished or asks a question. Raises Conflict if the claim is lost."""
    row = _held(connection, claim)
    record_heartbeat(connection, row.claimed_by)
    if not _is_open(row):
        return _lease(row)
    values: dict[str, Any] = _extended_lease(lease_seconds)
    if row.status in ("pending", "failed"):
        values |= {"status": "claimed", "updated_at": NOW, "error": None, "finished_at": None}
    if progress is not None:
        values["progress"] = _json(progress)
    return _change(connection, claim, values)


def start(connection: Connection, claim: ClaimToken, *, source: str) -> Lease:
    """Mark the task as running. Repeatable. Raises Conflict if the claim is lost."""
    row = _held(connection, claim)
    record_heartbeat(connection, row.claimed_by)
    if not _is_open(row):
        return _lease(row)
    values = {"status": "running", "updated_at": NOW, "error": None, "finished_at": None, **_extended_lease(None)}
    lease = _change(connection, claim, values)
    if row.status != "running":
        message = f'{row.claimed_by} started "{_title(row)}".'
        append_event(connection, row, "start_task", message, source=source)
    return lease


def release(connection: Connection, claim: ClaimToken, *, source: str) -> tuple[Lease, TaskNotification]:
    """End the claim and return the task to the queue, without counting the attempt. Raises Conflict if the claim is
    lost."""
    row = _held(connection, claim)
    if not _is_open(row):
        return _lease(row), TaskNotification()
    values = {
        "status": "pending",
        "attempt": func.greatest(TASKS.c.attempt - 1, 0),
        "claimed_by": None,
        "claim_token": None,
        "lease_expires_at": None,
        "progress": None,
        "error": None,
        "finished_at": None,
        "updated_at": NOW,
    }
    lease = _change(connection, claim, values)
    message = f'{row.claimed_by} released "{_title(row)}".'
    append_event(connection, row, "release_task", message, source=source)
    return lease, TaskNotification(claimable=[_claimable(row)], freed=_names(row))


def requeue_expired(connection: Connection) -> tuple[TaskNotification, set[str]]:
    """Return up to RETURNED_AT_ONCE tasks with an expired lease to the queue, or fail them after their last attempt.
    Returns the notification and the sessions with new events."""
    expired = (
        select(TASKS.c.session_id, TASKS.c.task_id)
        .where(TASKS.c.lease_expires_at < func.now())
        .limit(RETURNED_AT_ONCE)
        .with_for_update(skip_locked=True, key_share=True)
        .cte("expired")
    )
    tries_left = TASKS.c.attempt < TASKS.c.max_attempts
    returned = (
        update(TASKS)
        .where(TASKS.c.session_id == expired.c.session_id, TASKS.c.task_id == expired.c.task_id)
        .values(
            status=case((tries_left, "pending"), else_="failed"),
            error=case((tries_left, TASKS.c.error), else_=LOST),
            finished_at=case((tries_left, None), else_=NOW),
            lease_expires_at=None,
            updated_at=NOW,
            shown_at=None,
        )
        .returning(*_STATE)
    )
    events: list[Event] = []
    news = TaskNotification(claimable=[], freed=[], settled=[])
    for row in connection.execute(returned):
        is_queued = row.status == "pending"
        what = "returned to the queue" if is_queued else "failed, as this was the last attempt"
        message = f'The lease of {row.claimed_by} on "{_title(row)}" expired; the task {what}.'
        events.append(_event(row, "return_task", message, source=SWEEPER))
        news.freed.extend(_names(row))
        if is_queued:
            news.claimable.append(_claimable(row))
        else:
            news.settled.append((row.session_id, row.task_id))
    if news.settled:
        for key, event in fail_dependents(connection, news.settled[:]):
            news.settled.append(key)
            events.append(event)
    write_events(connection, events)
    return news, {event.session_id for event in events}


def forget_agents(connection: Connection) -> int:
    """Delete unregistered agents that hold no task: those not seen for UNREGISTERED_SECONDS, and all but the
    MOST_UNREGISTERED seen last, since clients can claim under arbitrary names. A new claim creates the agent again."""
    unregistered = select(AGENTS.c.name, AGENTS.c.last_seen_at).where(~AGENTS.c.is_registered)
    latest = AGENTS.c.last_seen_at.desc().nulls_last()
    too_many = unregistered.order_by(latest).offset(MOST_UNREGISTERED).subquery()
    old = AGENTS.c.last_seen_at < NOW - timedelta(seconds=UNREGISTERED_SECONDS)
    holding = select(TASKS.c.claimed_by).where(
        TASKS.c.claimed_by == AGENTS.c.name, TASKS.c.lease_expires_at.is_not(None)
    )
    forgotten = (
        select(AGENTS.c.name)
        .where(~AGENTS.c.is_registered, or_(old, AGENTS.c.name.in_(select(too_many.c.name))), ~holding.exists())
        .with_for_update(skip_locked=True)
    )
    return connection.execute(delete(AGENTS).where(AGENTS.c.name.in_(forgotten))).rowcount


def fail_stuck(connection: Connection) -> tuple[TaskNotification, set[str]]:
    """Fail all tasks that depend on a failed or cancelled one. Returns the notification and the sessions with new
    events."""
    failed = fail_dependents(connection)
    write_events(connection, [event for _, event in failed])
    return TaskNotification(settled=[key for key, _ in failed]), {key[0] for key, _ in failed}


def holds_task(connection: Connection, source: str, session_id: str) -> bool:
    """Return whether the source holds the claim of a task in the session."""
    held = select(TASKS.c.task_id).where(
        TASKS.c.claim_source == source, TASKS.c.session_id == session_id, TASKS.c.lease_expires_at.is_not(None)
    )
    return connection.execute(held.limit(1)).first() is not None


def record_heartbeat(connection: Connection, name: str | None) -> None:
    """Record a heartbeat of an agent unless there is a recent one. Skips a locked row: its holder records one, too."""
    old = NOW - timedelta(seconds=SEEN_SECONDS)
    quiet = (
        select(AGENTS.c.name)
        .where(AGENTS.c.name == name, or_(AGENTS.c.last_seen_at.is_(None), AGENTS.c.last_seen_at < old))
        .with_for_update(skip_locked=True, key_share=True)
    )
    connection.execute(update(AGENTS).where(AGENTS.c.name.in_(quiet)).values(last_seen_at=NOW))


def append_event(connection: Connection, row: Row[Any], event: str, message: str, *, source: str) -> None:
    """Append an event about a task to the event log. Must be the last statement of the transaction."""
    write_events(connection, [_event(row, event, message, source=source)])


def in_seconds(seconds: ColumnElement[int] | ColumnElement[int | None]) -> ColumnElement[datetime]:
    """Return the time this many seconds from now."""
    return NOW + func.make_interval(0, 0, 0, 0, 0, 0, seconds)


_STATE: tuple[Any, ...] = (
    *(TASKS.c.session_id, TASKS.c.task_id, TASKS.c.status, TASKS.c.attempt, TASKS.c.lease_expires_at),
    *(TASKS.c.agent_name, TASKS.c.task_type, TASKS.c.created_by, TASKS.c.claimed_by),
    titled(TASKS.c).label("titled"),
    NOW.label("now"),
)
_LEASE: tuple[Any, ...] = (
    *(TASKS.c.session_id, TASKS.c.task_id, TASKS.c.status, TASKS.c.attempt),
    *(TASKS.c.lease_expires_at, TASKS.c.claimed_by),
)


def _title(row: Row[Any]) -> str:
    return make_title(row.titled)


def _event(row: Row[Any], event: str, message: str, *, source: str) -> Event:
    data = {"task_id": row.task_id, "attempt": row.attempt}
    return Event(
        session_id=row.session_id,
        event=event,
        status="applied",
        delivery_id=None,
        source=source,
        message=message,
        created_at=row.now,
        data=Raw(msgspec.json.encode(data)),
    )


def _held(connection: Connection, claim: ClaimToken) -> Row[Any]:
    held = select(*_STATE).where(
        TASKS.c.session_id == claim.session_id, TASKS.c.task_id == claim.task_id, TASKS.c.claim_token == claim.hash
    )
    row = connection.execute(held.with_for_update(key_share=True)).one_or_none()
    if row is None:
        raise claim_lost()
    return row


def _is_open(row: Row[Any]) -> bool:
    """Return whether the holder may work on the task. A pending or failed task that still has the token lost its lease;
    releasing it removes the token."""
    return row.status in ("pending", "claimed", "running", "failed")


def _change(connection: Connection, claim: ClaimToken, values: dict[str, Any]) -> Lease:
    this = (TASKS.c.session_id == claim.session_id, TASKS.c.task_id == claim.task_id)
    return _lease(connection.execute(update(TASKS).where(*this).values(**values).returning(*_LEASE)).one())


def _extended_lease(lease_seconds: int | None) -> dict[str, Any]:
    if lease_seconds is None:
        return {"lease_expires_at": in_seconds(TASKS.c.lease_seconds)}
    return {"lease_expires_at": in_seconds(literal(lease_seconds)), "lease_seconds": lease_seconds}


def _json(text: bytes) -> ColumnElement[Any]:
    return cast(literal(text.decode(), Text), JSON)


def _lease(row: Row[Any]) -> Lease:
    return Lease(**{name: getattr(row, name) for name in Lease.__struct_fields__})


def _claimable(row: Row[Any]) -> Claimable:
    return Claimable(**{name: getattr(row, name) for name in Claimable.__struct_fields__})


def _names(row: Row[Any]) -> list[str]:
    return [row.claimed_by] if row.claimed_by else []
