"""Fails tasks in Postgres that depend on a failed or cancelled task.

Locks are acquired in the order task, event log; the caller writes the event log.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, Connection, Row, Text, cast, column, func, select, text, update

from models.tables import TASKS, titled
from sessions.rules.event_log import Event
from sessions.rules.task_endings import DEAD, event_of_dependent, reason

FAILED_AT_ONCE = 500


class FailedDependent(NamedTuple):
    """A task that failed because of another, with its event."""

    key: tuple[str, str]
    event: Event


def fail_dependents(connection: Connection, ended: Collection[tuple[str, str]] | None = None) -> list[FailedDependent]:
    """Fail the pending tasks that depend, directly or indirectly, on any of the `ended` tasks, given by session and id,
    that failed or was cancelled; without `ended`, on any such task. Skips tasks that other transactions have locked:
    the next call finds them."""
    failed: list[FailedDependent] = []
    while ended is None or ended:
        rows = _fail_some(connection, ended)
        failed += map(_append_events, rows)
        if not rows:
            break
        if ended is not None:
            # The rest of this level, and the tasks that depend on those just failed.
            ended = {*(ended if len(rows) == FAILED_AT_ONCE else ()), *((row.session_id, row.task_id) for row in rows)}
    return failed


def _fail_some(connection: Connection, ended: Collection[tuple[str, str]] | None) -> list[Row[Any]]:
    dead = TASKS.alias()
    cause = (
        select(dead.c.task_id)
        .where(dead.c.session_id == TASKS.c.session_id, dead.c.task_id == func.any(TASKS.c.depends_on))
        .where(dead.c.status.in_(sorted(DEAD)))
        .order_by(dead.c.finished_at, dead.c.task_id)
        .limit(1)
        .correlate(TASKS)
        .scalar_subquery()
    )
    waiting = (
        select(TASKS.c.session_id, TASKS.c.task_id, cause.label("cause"))
        .where(TASKS.c.status == "pending", TASKS.c.finished_at.is_(None))
        .where(func.cardinality(TASKS.c.depends_on) > 0, cause.is_not(None))
        .limit(FAILED_AT_ONCE)
        .with_for_update(skip_locked=True, key_share=True)
    )
    if ended is not None:
        sessions, tasks = (cast(list(ids), ARRAY(Text)) for ids in zip(*ended, strict=True))
        those = (
            func.unnest(sessions, tasks)
            .table_valued(column("of_session", Text), column("ended", Text))
            .render_derived("those")
        )
        waiting = waiting.where(
            TASKS.c.session_id.in_(sorted({session_id for session_id, _ in ended})),
            select(text("1"))
            .select_from(those)
            .where(those.c.of_session == TASKS.c.session_id, those.c.ended == func.any(TASKS.c.depends_on))
            .correlate(TASKS)
            .exists(),
        )
    found = connection.execute(waiting).all()
    if not found:
        return []
    return _fail(connection, found)


def _fail(connection: Connection, found: Collection[Row[Any]]) -> list[Row[Any]]:
    dead = TASKS.alias()
    arrays = [cast([getattr(row, name) for row in found], ARRAY(Text)) for name in ("session_id", "task_id", "cause")]
    names = (column("of_session", Text), column("waiting", Text), column("cause", Text))
    those = func.unnest(*arrays).table_valued(*names).render_derived("those")
    causes = connection.execute(
        select(those.c.of_session, those.c.waiting, titled(dead.c).label("titled"), dead.c.status).join(
            dead, (dead.c.session_id == those.c.of_session) & (dead.c.task_id == those.c.cause)
        )
    ).all()
    errors = [cast([row.of_session for row in causes], ARRAY(Text)), cast([row.waiting for row in causes], ARRAY(Text))]
    errors.append(cast([reason(row.titled, row.status) for row in causes], ARRAY(Text)))
    given = func.unnest(*errors).table_valued(*names).render_derived("given")
    now = func.clock_timestamp()
    failed = (
        update(TASKS)
        .where(TASKS.c.session_id == given.c.of_session, TASKS.c.task_id == given.c.waiting)
        .values(status="failed", error=given.c.cause, finished_at=now, updated_at=now, shown_at=None)
        .returning(
            *(TASKS.c.session_id, TASKS.c.task_id, TASKS.c.attempt, TASKS.c.error),
            titled(TASKS.c).label("titled"),
            now.label("now"),
        )
    )
    return list(connection.execute(failed).all())


def _append_events(row: Row[Any]) -> FailedDependent:
    event = event_of_dependent(
        session_id=row.session_id,
        task_id=row.task_id,
        titled=row.titled,
        attempt=row.attempt,
        error=row.error,
        at=row.now,
    )
    return FailedDependent((row.session_id, row.task_id), event)
