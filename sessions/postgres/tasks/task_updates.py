"""Finds task updates in Postgres that are added to responses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Row,
    Select,
    Text,
    and_,
    any_,
    bindparam,
    column,
    false,
    func,
    or_,
    select,
    text,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.selectable import LateralFromClause

from models.tables import SESSIONS, TASKS, UNSEEN_BY_DELEGATOR, titled
from sessions.postgres.reads.tasks import OPEN_QUESTION
from sessions.responses.task_updates import (
    AT_MOST,
    ELSEWHERE_FOR,
    ELSEWHERE_TASKS,
    EXCERPT_LENGTH,
    LOOKED_AT,
    SEEN_FOR,
    SETTLED,
    SHOWN_FOR,
    UNCLAIMED_AFTER,
    Elsewhere,
    Listener,
    TaskUpdate,
    choose,
    describe_elsewhere,
    describe_update,
)


def find_updates(
    connection: Connection, listeners: Collection[Listener], now: datetime
) -> dict[Listener, list[dict[str, Any]]]:
    """Return, per listener with updates, the updated tasks of its session, and one line on those it delegated
    elsewhere.

    Runs four statements for all listeners together, each reading a bounded number of rows per listener; without any
    tasks only the first one, as planning the others takes a millisecond.
    """
    ordered = sorted(set(listeners), key=lambda listener: (listener.session_id, listener.source))
    if not ordered:
        return {}
    here, delegated = _find_tasks(connection, ordered, now)
    news = _find_news(connection, ordered, now) if here else {}
    chosen = {listener: choose(items) for listener, items in news.items()}
    tasks = {(listener.session_id, item.task_id) for listener, items in chosen.items() for item in items}
    texts = _find_texts(connection, tasks)
    elsewhere = _find_elsewhere(connection, ordered, now) if delegated else {}
    updates: dict[Listener, list[dict[str, Any]]] = {}
    for listener in ordered:
        described = [
            describe_update(**texts[listener.session_id, item.task_id], task_id=item.task_id, seen=item.seen)
            for item in chosen.get(listener, ())
        ]
        described += describe_elsewhere(elsewhere.get(listener.source, ()), listener)
        if described:
            updates[listener] = described
    return updates


def _find_tasks(connection: Connection, ordered: Sequence[Listener], now: datetime) -> tuple[bool, bool]:
    """Return whether one of the sessions has any task, and whether one of the sources has delegated tasks whose updates
    it has not seen."""
    values = {
        "sessions": sorted({listener.session_id for listener in ordered}),
        "sources": _sources(ordered),
        "since": now - ELSEWHERE_FOR,
    }
    here, delegated = connection.execute(_select_whether_there_are_tasks(), values).one()
    return bool(here), bool(delegated)


@cache
def _select_whether_there_are_tasks() -> Select[bool, bool]:
    # Both look up one value after the other: asked for any of a list, the planner would read all of a table of which it
    # takes many rows for the list's.
    session, source = (
        func.unnest(bindparam(name, type_=ARRAY(Text))).table_valued(column("name", Text)).render_derived(name)
        for name in ("sessions", "sources")
    )
    first = select(TASKS.c.task_id).where(TASKS.c.session_id == session.c.name).order_by(TASKS.c.position).limit(1)
    latest = _unseen_elsewhere(source.c.name).limit(1)
    here = select(1).select_from(session.join(first.lateral("first"), true()))
    delegated = select(1).select_from(source.join(latest.lateral("latest"), true()))
    return select(here.exists(), delegated.exists())


def _unseen_elsewhere(source: ColumnElement[str]) -> Select[str, str, datetime]:
    """The tasks that a source has delegated and whose updates it has not seen, the latest first."""
    return (
        select(TASKS.c.session_id, TASKS.c.status, TASKS.c.updated_at)
        .where(TASKS.c.created_by == source, TASKS.c.updated_at > bindparam("since"), text(UNSEEN_BY_DELEGATOR))
        .order_by(TASKS.c.updated_at.desc())
    )


def _sources(listeners: Sequence[Listener]) -> list[str]:
    return sorted({listener.source for listener in listeners if listener.may_read})


def _find_news(connection: Connection, ordered: Sequence[Listener], now: datetime) -> dict[Listener, list[TaskUpdate]]:
    """Return the updates that no source has seen, and the latest of those that one has seen."""
    values = {
        "sessions": [listener.session_id for listener in ordered],
        "sources": [listener.source for listener in ordered],
        "unclaimed_before": now - UNCLAIMED_AFTER,
        "shown_since": now - SHOWN_FOR,
        "seen_since": now - SEEN_FOR,
    }
    found: dict[Listener, list[TaskUpdate]] = {}
    for row in connection.execute(_select_news(), values):
        news = TaskUpdate(task_id=row.task_id, updated_at=row.updated_at, position=row.position, seen=row.seen)
        found.setdefault(ordered[row.number - 1], []).append(news)
    return found


@cache
def _select_news() -> CompoundSelect[Any]:
    arrays = [bindparam(name, type_=ARRAY(Text)) for name in ("sessions", "sources")]
    names = (column("session_id", Text), column("source", Text))
    wanted = func.unnest(*arrays).table_valued(*names, with_ordinality="number").render_derived("wanted")
    waits_since = func.greatest(TASKS.c.updated_at, TASKS.c.not_before)
    is_unclaimed = and_(TASKS.c.status == "pending", waits_since < bindparam("unclaimed_before"))

    def latest(name: str, limit: int, *where: Any) -> LateralFromClause:
        columns = (TASKS.c.task_id, TASKS.c.updated_at, TASKS.c.position, TASKS.c.seen_by)
        statement = select(*columns).where(TASKS.c.session_id == wanted.c.session_id, *where)
        return statement.order_by(TASKS.c.updated_at.desc(), TASKS.c.position.desc()).limit(limit).lateral(name)

    unseen = latest(
        "unseen",
        AT_MOST,
        or_(TASKS.c.shown_at.is_(None), TASKS.c.shown_at < TASKS.c.updated_at),
        or_(TASKS.c.status.in_(SETTLED), and_(is_unclaimed, TASKS.c.shown_at.is_(None))),
    )
    shown = latest(
        "shown",
        LOOKED_AT,
        TASKS.c.shown_at >= TASKS.c.updated_at,
        TASKS.c.updated_at > bindparam("shown_since"),
        or_(TASKS.c.status.in_(SETTLED), is_unclaimed),
    )
    is_seen = wanted.c.source == any_(shown.c.seen_by)
    return union_all(
        select(wanted.c.number, *list(unseen.c)[:3], false().label("seen")).select_from(wanted.join(unseen, true())),
        select(wanted.c.number, *list(shown.c)[:3], is_seen.label("seen"))
        .select_from(wanted.join(shown, true()))
        .where(or_(~is_seen, shown.c.updated_at > bindparam("seen_since"))),
    )


def _find_texts(connection: Connection, tasks: set[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any]]:
    if not tasks:
        return {}
    columns = (
        *(TASKS.c.status, TASKS.c.agent_name, TASKS.c.updated_at),
        titled(TASKS.c).label("titled"),
        func.left(OPEN_QUESTION, EXCERPT_LENGTH + 1).label("question"),
        func.left(TASKS.c.error, EXCERPT_LENGTH + 1).label("error"),
    )
    these = tuple_(TASKS.c.session_id, TASKS.c.task_id).in_(sorted(tasks))
    rows = connection.execute(select(TASKS.c.session_id, TASKS.c.task_id, *columns).where(these))
    return {(row.session_id, row.task_id): _without_keys(row) for row in rows}


def _without_keys(row: Row[Any]) -> dict[str, Any]:
    return {str(name): value for name, value in row._mapping.items() if name not in ("session_id", "task_id")}


def _find_elsewhere(connection: Connection, ordered: Sequence[Listener], now: datetime) -> dict[str, list[Elsewhere]]:
    """Return, per source, the updated tasks that it delegated in any session and has not seen."""
    found: dict[str, list[Elsewhere]] = {}
    for row in connection.execute(_select_elsewhere(), {"sources": _sources(ordered), "since": now - ELSEWHERE_FOR}):
        found.setdefault(row.source, []).append(
            Elsewhere(
                session_id=row.session_id,
                title=row.title,
                status=row.status,
                count=row.number,
                updated_at=row.updated_at,
            )
        )
    return found


@cache
def _select_elsewhere() -> Select[Any]:
    wanted = func.unnest(bindparam("sources", type_=ARRAY(Text))).table_valued("source").render_derived("who")
    unseen = _unseen_elsewhere(wanted.c.source).limit(ELSEWHERE_TASKS).lateral("unseen")
    return (
        select(
            *(wanted.c.source, unseen.c.session_id, SESSIONS.c.title, unseen.c.status),
            func.count().label("number"),
            func.max(unseen.c.updated_at).label("updated_at"),
        )
        .select_from(wanted.join(unseen, true()).join(SESSIONS, SESSIONS.c.session_id == unseen.c.session_id))
        .group_by(wanted.c.source, unseen.c.session_id, SESSIONS.c.title, unseen.c.status)
    )
