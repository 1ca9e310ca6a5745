"""Claiming tasks in Postgres. `leases` extends and releases claims; completing a task goes through the inbox.

Locks are acquired in the order agent, task, event log. Sessions are not locked, so that claims never wait for commands.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Raw
from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Integer,
    Row,
    Text,
    and_,
    bindparam,
    cast,
    column,
    func,
    literal,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.dml import ReturningUpdate

from models.access.api_keys import hash_key
from models.access.session_glob import like_pattern
from models.commands.responses import make_title
from models.queue.task_notifications import Claimable, make_claim_secret
from models.tables import AGENTS, SESSIONS, TASKS
from models.timestamps import format_utc
from sessions.postgres.tasks.leases import NOW, SEEN_SECONDS, append_event, in_seconds, record_heartbeat
from sessions.rules.state import GENERAL

MAX_ANNOUNCED = 1_000
"""Claimable tasks per notification; the others are found when these are claimed."""


LaneName = Literal["own", "any", "kind"]


class ClaimCriteria(msgspec.Struct, frozen=True, kw_only=True):
    """The tasks that an agent accepts, and the terms of its claim."""

    agent_name: str
    worker: str
    lease_seconds: int
    source: str
    session_glob: str | None = None
    task_types: tuple[str, ...] | None = None
    """For tasks without an agent_name. Default: the agent's own type."""
    created_by: str | None = None


class ClaimedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that the agent has claimed."""

    secret: str
    session_id: str
    task: dict[str, Any]


class _CandidateQueue(NamedTuple):
    """A queue of tasks: the agent's own, or those without an agent_name, of one type or all."""

    name: LaneName
    task_type: str | None = None


class NoTask(msgspec.Struct, frozen=True, kw_only=True):
    """The result if no task is available to the agent."""

    types: tuple[str, ...] | None
    """The types that the agent accepts of tasks without an agent_name; None for all."""
    is_full: bool = False
    """The agent holds as many tasks as its max_concurrent allows."""


def claim(connection: Connection, wanted: ClaimCriteria) -> ClaimedTask | NoTask:
    """Claim the best available task for the agent, and create an unknown agent. Not repeatable: if the response is
    lost, the task returns to the queue when its lease expires."""
    agent = _find_agent(connection, wanted.agent_name)
    types = wanted.task_types or (None if agent.type == GENERAL else (agent.type,))
    candidate_queues = _find_queues(connection, wanted, types)
    if not candidate_queues:
        return NoTask(types=types)
    # Locked only now, since most claims find no task. The count is a separate statement, so that it sees the claims of
    # previous holders of the lock.
    of_agent = AGENTS.c.name == wanted.agent_name
    allowed = select(AGENTS.c.max_concurrent).where(of_agent).with_for_update(key_share=True)
    most = connection.scalar(allowed)
    if most is None:  # The sweeper has deleted it in the meantime.
        _find_agent(connection, wanted.agent_name)
        most = connection.scalar(allowed) or 0
    if _count_held(connection, wanted.agent_name) >= most:
        return NoTask(types=types, is_full=True)
    for candidate_queue in candidate_queues:
        secret = make_claim_secret()
        if (row := _claim_first(connection, wanted, candidate_queue, secret)) is not None:
            message = f'{wanted.agent_name} claimed "{make_title(row.title or row.description)}".'
            append_event(connection, row, "claim_task", message, source=wanted.source)
            return ClaimedTask(secret=secret, session_id=row.session_id, task=_describe(row))
    return NoTask(types=types)


def find_claimable(connection: Connection, *, names: Collection[str], types: Collection[str] | None) -> list[Claimable]:
    """Return the claimable tasks for these agents, and those without an agent_name of these types."""
    unnamed = TASKS.c.agent_name.is_(None)
    for_any = unnamed if types is None else and_(unnamed, TASKS.c.task_type.in_(types))
    return _claimable(connection, or_(TASKS.c.agent_name.in_(names), for_any))


def find_claimable_of(
    connection: Connection, session_ids: Collection[str], *conditions: ColumnElement[bool]
) -> list[Claimable]:
    """Return the claimable tasks of these sessions that meet one of the conditions."""
    return _claimable(connection, and_(TASKS.c.session_id.in_(session_ids), or_(*conditions)))


def find_free(connection: Connection, names: Collection[str]) -> list[str]:
    """Return the agents that hold fewer tasks than their max_concurrent."""
    held = select(func.count()).where(TASKS.c.claimed_by == AGENTS.c.name, TASKS.c.lease_expires_at.is_not(None))
    free = AGENTS.c.max_concurrent > held.correlate(AGENTS).scalar_subquery()
    return list(connection.execute(select(AGENTS.c.name).where(AGENTS.c.name.in_(names), free)).scalars())


def _claimable(connection: Connection, condition: ColumnElement[bool]) -> list[Claimable]:
    columns = [TASKS.c[name] for name in Claimable.__struct_fields__]
    found = connection.execute(select(*columns).where(_ready(), condition).limit(MAX_ANNOUNCED))
    return [Claimable(**row._mapping) for row in found]


_BEST_FIRST = (TASKS.c.priority.desc(), TASKS.c.position)


def _find_agent(connection: Connection, name: str) -> Row[Any]:
    columns: list[Any] = [AGENTS.c.type, AGENTS.c.last_seen_at, func.now().label("now")]
    known = select(*columns).where(AGENTS.c.name == name)
    agent = connection.execute(known).one_or_none()
    if agent is None:
        defaults = {"name": name, "type": GENERAL, "max_concurrent": 1, "capabilities": [], "registered_at": NOW}
        connection.execute(insert(AGENTS).values(**defaults, last_seen_at=NOW).on_conflict_do_nothing())
        return connection.execute(known).one()
    if agent.last_seen_at is None or agent.last_seen_at < agent.now - timedelta(seconds=SEEN_SECONDS):
        record_heartbeat(connection, name)
    return agent


def _find_queues(connection: Connection, wanted: ClaimCriteria, types: Sequence[str] | None) -> list[_CandidateQueue]:
    """Return the queues with a task for the agent, the one with the best task first: its own, and those of tasks
    without an agent_name. Separate indexes keep the tasks of other agents free of cost."""
    kinds = {f"kind_{number}": kind for number, kind in enumerate(types or ())}
    candidate_queues = [
        _CandidateQueue("own"),
        *([_CandidateQueue("any")] if types is None else (_CandidateQueue("kind", kind) for kind in types)),
    ]
    statement = _heads_statement(None if types is None else len(types), _filters_of(wanted))
    return [candidate_queues[row.candidate_queue] for row in connection.execute(statement, _parameters(wanted) | kinds)]


def _claim_first(
    connection: Connection, wanted: ClaimCriteria, candidate_queue: _CandidateQueue, secret: str
) -> Row[Any] | None:
    given = {
        "its_name": wanted.agent_name,
        "its_worker": wanted.worker,
        "its_key": wanted.source,
        "its_lease": wanted.lease_seconds,
        "its_token": hash_key(secret),
        **({} if candidate_queue.task_type is None else {"kind": candidate_queue.task_type}),
    }
    statement = _claim_statement(candidate_queue.name, _filters_of(wanted))
    return connection.execute(statement, _parameters(wanted) | given).one_or_none()


def _count_held(connection: Connection, name: str) -> int:
    held = select(func.count()).where(TASKS.c.claimed_by == name, TASKS.c.lease_expires_at.is_not(None))
    return connection.scalar(held) or 0


def _describe(row: Row[Any]) -> dict[str, Any]:
    """Return the complete task for the agent."""
    plain = ("session_id", "session_title", "task_id", "agent_name", "task_type", "description", "priority", "attempt")
    task = {name: getattr(row, name) for name in (*plain, "max_attempts", "depends_on", "error", "created_by")}
    task["title"] = row.title or make_title(row.description)
    task |= {name: format_utc(getattr(row, name)) for name in ("created_at", "claimed_at", "lease_expires_at")}
    task |= {name: Raw(getattr(row, name).encode()) for name in ("input_data", "questions")}
    return {name: value for name, value in task.items() if value is not None}


# Statements are cached: building one takes longer than running it.

_Filters = tuple[bool, bool]
"""Flags: limited to some sessions, limited to one sender.

Parameters must not have the names of columns: in an UPDATE they would become values to set."""


def _filters_of(wanted: ClaimCriteria) -> _Filters:
    return wanted.session_glob is not None, wanted.created_by is not None


def _parameters(wanted: ClaimCriteria) -> dict[str, Any]:
    pattern = None if wanted.session_glob is None else like_pattern(wanted.session_glob)
    given = {"its_name": wanted.agent_name, "its_sessions": pattern, "sender": wanted.created_by}
    return {name: value for name, value in given.items() if value is not None}


@cache
def _heads_statement(types: int | None, filters: _Filters) -> CompoundSelect[Any]:
    """Select the first task of each non-empty queue, the best first."""
    kinds = (
        [_queue_condition("any")] if types is None else [_queue_condition("kind", f"kind_{n}") for n in range(types)]
    )
    heads = [
        select(TASKS.c.priority, TASKS.c.position, literal(number).label("candidate_queue"))
        .where(condition, _suits(filters))
        .order_by(*_BEST_FIRST)
        .limit(1)
        .subquery()
        .select()
        for number, condition in enumerate([_queue_condition("own"), *kinds])
    ]
    return union_all(*heads).order_by(column("priority").desc(), column("position"))


@cache
def _claim_statement(candidate_queue: LaneName, filters: _Filters) -> ReturningUpdate[Any]:
    """Claim the first task of a queue that no other transaction has locked."""
    first = (
        select(TASKS.c.session_id, TASKS.c.task_id)
        .where(_queue_condition(candidate_queue), _suits(filters))
        .order_by(*_BEST_FIRST)
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True)
        .cte("first")
    )
    seconds = bindparam("its_lease", type_=Integer)
    return (
        update(TASKS)
        .where(TASKS.c.session_id == first.c.session_id, TASKS.c.task_id == first.c.task_id)
        .values(
            status="claimed",
            attempt=TASKS.c.attempt + 1,
            claimed_by=bindparam("its_name"),
            worker=bindparam("its_worker"),
            claim_source=bindparam("its_key"),
            claim_token=bindparam("its_token"),
            claimed_at=NOW,
            lease_seconds=seconds,
            lease_expires_at=in_seconds(seconds),
            progress=None,
            updated_at=NOW,
        )
        .returning(*_GRANTED)
    )


def _queue_condition(candidate_queue: LaneName, parameter: str = "kind") -> ColumnElement[bool]:
    if candidate_queue == "own":
        return TASKS.c.agent_name == bindparam("its_name")
    unnamed = TASKS.c.agent_name.is_(None)
    return unnamed if candidate_queue == "any" else and_(unnamed, TASKS.c.task_type == bindparam(parameter))


def _suits(filters: _Filters) -> ColumnElement[bool]:
    by_session, by_sender = filters
    sessions = TASKS.c.session_id.like(bindparam("its_sessions"), escape="\\")
    sender = TASKS.c.created_by == bindparam("sender")
    return and_(_ready(), *([sessions] if by_session else []), *([sender] if by_sender else []))


@cache
def _ready() -> ColumnElement[bool]:
    """The task is pending and due, its dependencies are completed, and its session is active."""
    needed = TASKS.alias()
    waits = (
        select(needed.c.task_id)
        .where(needed.c.session_id == TASKS.c.session_id, needed.c.task_id == func.any(TASKS.c.depends_on))
        .where(needed.c.status != "completed")
        .correlate(TASKS)
        .exists()
    )
    # Not EXISTS: the planner would turn it into a join, which may start from the sessions.
    status = select(SESSIONS.c.status).where(SESSIONS.c.session_id == TASKS.c.session_id).correlate(TASKS)
    return and_(
        TASKS.c.status == "pending",
        or_(TASKS.c.not_before.is_(None), TASKS.c.not_before <= func.now()),
        or_(func.cardinality(TASKS.c.depends_on) == 0, ~waits),
        status.scalar_subquery() == "active",
    )


_GRANTED: tuple[Any, ...] = (
    *(TASKS.c.session_id, TASKS.c.task_id, TASKS.c.agent_name, TASKS.c.task_type, TASKS.c.title, TASKS.c.description),
    *(TASKS.c.priority, TASKS.c.attempt, TASKS.c.max_attempts, TASKS.c.depends_on, TASKS.c.error),
    *(TASKS.c.created_by, TASKS.c.created_at, TASKS.c.claimed_at, TASKS.c.lease_expires_at),
    cast(TASKS.c.input_data, Text).label("input_data"),
    cast(TASKS.c.questions, Text).label("questions"),
    select(SESSIONS.c.title)
    .where(SESSIONS.c.session_id == TASKS.c.session_id)
    .correlate(TASKS)
    .scalar_subquery()
    .label("session_title"),
    NOW.label("now"),
)
