"""Drains a shard: applies its entries in order in one transaction, then acknowledges them.

A drain that is killed anywhere is repeated: committed entries are recognized by their delivery.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from models.errors import Unavailable
from models.queue.inbox import OUTCOME_SECONDS, SHARDS, WAKE_SECONDS, drain_pending_key, inbox_key, outcome_key
from models.queue.job_queue import enqueue_drains, open_queue
from models.queue.task_notifications import TaskNotification
from sessions.commands.manager import SessionManager
from sessions.commands.read_time_budget import ReadTimeBudget
from sessions.commands.store import StatementFailed
from sessions.postgres.commands.locks import try_shard
from sessions.postgres.commands.store import PostgresStore
from sessions.postgres.connections import diagnose, is_too_slow, is_unavailable, unavailable
from sessions.postgres.operations.deliveries import recently_forgotten
from sessions.rules.event_log import ApplyResult
from worker.dead_letters import show_dead_letter
from worker.failpoints import reach
from worker.inbox import (
    StreamEntry,
    acknowledge,
    failure_count_key,
    finish_if_empty,
    read_entries,
    slow_key,
)
from worker.outcomes import EncodedOutcome, encode_outcomes
from worker.read_time_debts import add_debts, owed_seconds

logger = logging.getLogger(__name__)

T = TypeVar("T")

DRAIN_SECONDS = 5.0
"""Longest run of one job, so that a busy shard does not keep the worker from others."""
SLOW_SECONDS = 60
"""Time for which an entry that took too long is remembered; if it does so again meanwhile, it is to blame."""
FIRST_BACKOFF_SECONDS = 0.5
LAST_BACKOFF_SECONDS = 4.0
"""Longest delay between retries of a shard while Postgres is unavailable."""

RESUMING = ("resume_session", "batch")


class Drained(NamedTuple):
    """What one transaction applied, and whether it left the shard empty."""

    applied: Sequence[ApplyResult]
    is_empty: bool


class Drain:
    """Drains shards with one connection to each server."""

    def __init__(self, redis: Redis, engine: Engine, *, failpoint_dir: str = "") -> None:
        self._redis = redis
        self._engine = engine
        self._failpoint_dir = failpoint_dir
        self._cause = ""
        """The logged cause for which the last shard waits."""

    def run(self, shard: int) -> str:
        """Drain a shard until it is empty or the time is up; then enqueue the rest again. Returns a summary. While
        Postgres is unavailable the entries wait, and the shard is retried later. Raises RedisError."""
        if not 0 <= shard < SHARDS:
            raise ValueError(f"Invalid shard {shard}.")
        counts: Counter[str] = Counter()
        ends_at = time.monotonic() + DRAIN_SECONDS
        try:
            with _unavailable_on_failure(), self._engine.connect() as connection:
                while time.monotonic() < ends_at:
                    drained = self._drain_once(connection, shard)
                    if drained is None:
                        return _describe(shard, counts, "busy elsewhere")
                    counts.update(item.status for item in drained.applied)
                    self._cause = ""
                    if drained.is_empty:
                        return _describe(shard, counts)
        except Unavailable as error:
            if isinstance(error.__cause__, RedisError):
                raise error.__cause__ from None
            self._report_waiting(shard, error.__cause__)
            seconds = self._back_off(shard)
            return _describe(shard, counts, f"Postgres unavailable, again in {seconds:g} s")
        self._redis.set(drain_pending_key(shard), "1", ex=WAKE_SECONDS)
        enqueue_drains(open_queue(self._redis), [shard])
        return _describe(shard, counts, "more to come")

    def _report_waiting(self, shard: int, error: BaseException | None) -> None:
        """Log why shards wait, once per cause, until a shard is drained again."""
        if error is not None and (cause := diagnose(error)) != self._cause:
            logger.warning("Shard %02d waits, and so will others. %s", shard, cause)
            self._cause = cause

    def _drain_once(self, connection: Connection, shard: int) -> Drained | None:
        """Apply waiting entries, as many as fit into one transaction; None if another worker has the shard."""
        with connection.begin() as transaction:
            if not try_shard(connection, shard):
                return None
            waiting, suspect = read_entries(self._redis, shard)
            if waiting:
                reach("after_read", self._failpoint_dir)
                store = PostgresStore(connection)
                is_alone = partial(self._is_alone, shard, waiting)
                owed = partial(owed_seconds, self._redis)
                reading = ReadTimeBudget(_or_give_up(owed), is_alone=_or_give_up(is_alone))
                manager = SessionManager(store, suspect=suspect, reading=reading)
                try:
                    applied = manager.apply([item.entry for item in waiting])
                finally:
                    add_debts(self._redis, reading.taken)
                    if manager.slow:
                        self._redis.set(slow_key(shard), ":".join(manager.slow), ex=SLOW_SECONDS)
                stale = _outcomes_of_deleted(connection, applied)
                outcomes = encode_outcomes(store, applied, stale=stale)
                news = store.task_news(resumed=_resumed(applied))
                reach("before_commit", self._failpoint_dir)
                transaction.commit()
        if not waiting:
            return Drained([], is_empty=finish_if_empty(self._redis, shard))
        reach("after_commit", self._failpoint_dir)
        is_empty = self._finish(shard, waiting[: len(applied)], applied, outcomes=outcomes, stale=stale, news=news)
        reach("after_delete", self._failpoint_dir)
        return Drained(applied, is_empty)

    def _is_alone(self, shard: int, waiting: Sequence[StreamEntry], source: str) -> bool:
        """Whether all waiting entries are of this source, and no other shard waits for a worker."""
        if any(item.entry.source != source for item in waiting):
            return False
        return self._redis.xlen(inbox_key(shard)) <= len(waiting) and open_queue(self._redis).count == 0

    def _finish(
        self,
        shard: int,
        entries: Sequence[StreamEntry],
        applied: Sequence[ApplyResult],
        *,
        outcomes: Sequence[EncodedOutcome],
        stale: Sequence[str],
        news: TaskNotification,
    ) -> bool:
        """Acknowledge committed entries, and return whether the shard is empty now."""
        is_empty = acknowledge(self._redis, shard, entries, applied, outcomes=outcomes, stale=stale, news=news)
        for item in applied:
            if item.status == "failed":
                try:
                    show_dead_letter(self._redis, item.entry.source, item.entry.delivery_id, item.trace)
                except RedisError as error:  # The sweeper will list it.
                    logger.warning("Dead letter %s is not listed yet: %s", item.entry.delivery_id, error)
        return is_empty

    def _back_off(self, shard: int) -> float:
        """Keep the drain marked as pending, longer each time, so that it is not enqueued before."""
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.incr(failure_count_key(shard))
            pipeline.expire(failure_count_key(shard), 60)
            failures: int = pipeline.execute()[0]
        seconds: float = min(FIRST_BACKOFF_SECONDS * 2 ** (failures - 1), LAST_BACKOFF_SECONDS)
        self._redis.set(drain_pending_key(shard), "1", px=int(seconds * 1000))
        return seconds


@contextmanager
def _unavailable_on_failure() -> Iterator[None]:
    """Raise Unavailable for what only the state of Postgres can have caused: all entries wait for it."""
    try:
        yield
    except SQLAlchemyError as error:
        # A statement outside of any entry is too slow because the database is.
        if is_unavailable(error) or is_too_slow(error):
            raise unavailable() from error
        raise
    except StatementFailed as error:
        if error.too_slow:
            raise unavailable() from error
        raise


def _or_give_up(ask: Callable[[str], T]) -> Callable[[str], T]:
    """Abort the transaction when a Redis command within it fails: no entry is to blame for that."""

    def ask_or_give_up(source: str) -> T:
        try:
            return ask(source)
        except RedisError as error:
            raise Unavailable("Redis does not answer at the moment. Nothing is lost; the worker retries.") from error

    return ask_or_give_up


def _resumed(applied: Sequence[ApplyResult]) -> set[str]:
    """Returns sessions whose tasks may be claimed again."""
    return {
        item.entry.session_id
        for item in applied
        if item.entry.command in RESUMING and item.status == "applied" and item.entry.session_id
    }


def _outcomes_of_deleted(connection: Connection, applied: Sequence[ApplyResult]) -> list[str]:
    """Returns keys of outcomes that may hold data of sessions that are deleted now."""
    sessions = [
        item.entry.session_id
        for item in applied
        if item.entry.command == "delete_session" and item.http_status == 200 and item.entry.session_id
    ]
    if not sessions:
        return []
    return [outcome_key(*identity) for identity in recently_forgotten(connection, sessions, seconds=OUTCOME_SECONDS)]


def _describe(shard: int, counts: Counter[str], remark: str = "") -> str:
    shown = ("applied", "rejected", "parked", "failed", "ignored", "duplicate", "conflict")
    parts = [f"{counts[status]} {status}" for status in shown]
    done = ", ".join(part for part in parts if not part.startswith("0 "))
    return f"drain shard {shard:02d}: " + "; ".join(part for part in (done or "0 applied", remark) if part)
