"""Drains shards: applies their entries in order in one transaction, then acknowledges them.

A drain that is killed anywhere is repeated: committed entries are recognized by their delivery.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine, RootTransaction
from sqlalchemy.exc import SQLAlchemyError

from models.errors import Unavailable
from models.process.log_repetition import TROUBLE
from models.queue.inbox import (
    OUTCOME_SECONDS,
    SHARDS,
    WAKE_SECONDS,
    Identity,
    drain_pending_key,
    inbox_key,
    outcome_key,
)
from models.queue.job_queue import enqueue_drains, name_shards, open_queue
from models.queue.metrics import Counts
from models.queue.task_notifications import TaskNotification
from sessions.commands.manager import SessionManager
from sessions.commands.pending_writes import identity_of
from sessions.commands.read_time_budget import ReadTimeBudget
from sessions.commands.store import StatementFailed
from sessions.postgres.commands.locks import try_shards
from sessions.postgres.commands.store import PostgresStore
from sessions.postgres.connections import diagnose, is_too_slow, is_unavailable, unavailable
from sessions.postgres.operations.deliveries import recently_forgotten
from sessions.rules.event_log import ApplyResult
from worker.dead_letters import show_dead_letter
from worker.delivery_log import DeliveryLog
from worker.drain_metrics import count_applied
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
TOGETHER_SECONDS, TOGETHER_ENTRIES = 0.25, 250
"""After a transaction that took longer, or applied more, each of its shards gets a job of its own: slow entries of one
would delay the others, and several workers can share the work."""
PAUSE_SECONDS = 0.02
BUSY_ENTRIES = range(4, 100)
"""After a transaction with that many entries, the next one begins no sooner than PAUSE_SECONDS later, as webhooks come
fast enough to gather: a transaction costs as much as dozens of them."""
SLOW_SECONDS = 60
"""Time for which an entry that took too long is remembered; if it does so again meanwhile, it is to blame."""
FIRST_BACKOFF_SECONDS = 0.5
LAST_BACKOFF_SECONDS = 4.0
"""Longest delay between retries of a shard while Postgres is unavailable."""

RESUMING = ("resume_session", "batch")


class Drained(NamedTuple):
    """The results of one transaction, the shards that it had locked, and those of them that it left empty."""

    applied: Sequence[ApplyResult]
    locked: Sequence[int]
    empty: Collection[int]
    was_suspect: bool = False
    """Whether an entry was retried that took too long before: then only its shard was read."""


class Committed(NamedTuple):
    """The results of a committed transaction, and what is to be sent."""

    applied: Sequence[ApplyResult]
    outcomes: Sequence[EncodedOutcome]
    stale: Sequence[str]
    """Keys of outcomes to delete."""
    news: TaskNotification


class Drain:
    """Drains shards with one connection to each server."""

    def __init__(self, redis: Redis, engine: Engine, *, failpoint_dir: str = "") -> None:
        self._redis = redis
        self._engine = engine
        self._failpoint_dir = failpoint_dir
        self._slow: int | None = None
        """The shard of the entry that took too long in this job."""
        self._log = DeliveryLog()
        self._pause_until = 0.0
        """When the next transaction may begin if nothing else waits."""

    def run(self, shards: Sequence[int]) -> str:
        """Drain shards until they are empty or the time is up; then enqueue the rest again. Returns a summary. While
        Postgres is unavailable the entries wait, and the shards are retried later. Raises RedisError."""
        if not shards or not all(0 <= shard < SHARDS for shard in shards):
            raise ValueError(f"Invalid shards {shards}.")
        self._slow = None
        counts: Counter[str] = Counter()
        remarks: dict[str, None] = {}
        left, together = list(shards), True
        ends_at = time.monotonic() + DRAIN_SECONDS
        try:
            with _unavailable_on_failure(), self._engine.connect() as connection:
                while left and together and time.monotonic() < ends_at:
                    self._pause()
                    began_at = time.monotonic()
                    drained = self._drain_once(connection, left)
                    number, seconds = len(drained.applied), time.monotonic() - began_at
                    self._pause_until = began_at + seconds + PAUSE_SECONDS if number in BUSY_ENTRIES else 0.0
                    counts.update(item.status for item in drained.applied)
                    self._log.write_results(drained.applied)
                    if len(drained.locked) < len(left):
                        remarks["busy elsewhere"] = None
                    left = [shard for shard in drained.locked if shard not in drained.empty]
                    is_quick = number < TOGETHER_ENTRIES and seconds < TOGETHER_SECONDS and not drained.was_suspect
                    together = len(left) == 1 or is_quick
                    if left and self._do_jobs_wait():
                        break
        except Unavailable as error:
            if isinstance(error.__cause__, RedisError):
                raise error.__cause__ from None
            waiting = left if self._slow is None else [self._slow]
            self._report_waiting(waiting, error.__cause__)
            remarks[f"Postgres unavailable, again in {self._back_off(waiting):g} s"] = None
            left, together = [shard for shard in left if shard not in waiting], False
        if left:
            self._enqueue_again(left, together=together)
            remarks["more to come"] = None
        return _describe(shards, counts, remarks)

    def _pause(self) -> None:
        """Let webhooks gather after a transaction with several, unless there is other work."""
        seconds = self._pause_until - time.monotonic()
        if seconds > 0 and not self._do_jobs_wait():
            time.sleep(seconds)

    def _do_jobs_wait(self) -> bool:
        return bool(open_queue(self._redis).count)

    def _enqueue_again(self, shards: Sequence[int], *, together: bool) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            for shard in shards:
                pipeline.set(drain_pending_key(shard), "1", ex=WAKE_SECONDS)
            pipeline.execute()
        enqueue_drains(open_queue(self._redis), shards, together=together)

    def _report_waiting(self, shards: Sequence[int], error: BaseException | None) -> None:
        if error is not None:
            cause = diagnose(error)
            logger.warning("%s waits. %s", name_shards(shards).capitalize(), cause, extra={TROUBLE: cause})

    def _drain_once(self, connection: Connection, shards: Sequence[int]) -> Drained:
        """Apply waiting entries, as many as fit into one transaction, of the shards that no other worker has."""
        began_at = time.monotonic()
        with connection.begin() as transaction:
            locked = try_shards(connection, shards)
            if not locked:
                return Drained([], locked, empty=())
            waiting, suspect = read_entries(self._redis, locked)
            if waiting:
                reach("after_read", self._failpoint_dir)
                committed = self._apply(connection, transaction, locked, waiting, suspect)
                counts = count_applied(committed.applied, transaction_seconds=time.monotonic() - began_at)
        if not waiting:
            return Drained([], locked, empty=finish_if_empty(self._redis, locked))
        reach("after_commit", self._failpoint_dir)
        empty = self._finish(locked, waiting[: len(committed.applied)], committed, counts=counts)
        reach("after_delete", self._failpoint_dir)
        return Drained(committed.applied, locked, empty, was_suspect=suspect is not None)

    def _apply(
        self,
        connection: Connection,
        transaction: RootTransaction,
        shards: Sequence[int],
        waiting: Sequence[StreamEntry],
        suspect: Identity | None,
    ) -> Committed:
        """Apply entries of locked shards, and commit."""
        store = PostgresStore(connection)
        is_alone = partial(self._is_alone, shards, waiting)
        owed = partial(owed_seconds, self._redis)
        reading = ReadTimeBudget(_or_give_up(owed), is_alone=_or_give_up(is_alone))
        manager = SessionManager(store, suspect=suspect, reading=reading)
        try:
            applied = manager.apply([item.entry for item in waiting])
        finally:
            add_debts(self._redis, reading.taken)
            if manager.slow:
                self._note_slow(waiting, manager.slow)
        stale = _outcomes_of_deleted(connection, applied)
        outcomes = encode_outcomes(store, applied, stale=stale)
        news = store.task_news(resumed=_resumed(applied))
        reach("before_commit", self._failpoint_dir)
        transaction.commit()
        return Committed(applied, outcomes, stale, news)

    def _note_slow(self, waiting: Sequence[StreamEntry], slow: Identity) -> None:
        """Remember the entry that took too long, for the next drain of its shard."""
        self._slow = next(item.shard for item in waiting if identity_of(item.entry) == slow)
        self._redis.set(slow_key(self._slow), ":".join(slow), ex=SLOW_SECONDS)

    def _is_alone(self, shards: Sequence[int], waiting: Sequence[StreamEntry], source: str) -> bool:
        """Whether all waiting entries are of this source, and no other shard waits for a worker."""
        if any(item.entry.source != source for item in waiting):
            return False
        with self._redis.pipeline(transaction=False) as pipeline:
            for shard in shards:
                pipeline.xlen(inbox_key(shard))
            lengths = pipeline.execute()
        return sum(lengths) <= len(waiting) and not self._do_jobs_wait()

    def _finish(
        self, shards: Sequence[int], entries: Sequence[StreamEntry], committed: Committed, *, counts: Counts
    ) -> set[int]:
        """Acknowledge committed entries, and return the shards that are empty now."""
        applied = committed.applied
        empty = acknowledge(
            self._redis,
            shards,
            entries,
            applied,
            outcomes=committed.outcomes,
            stale=committed.stale,
            news=committed.news,
            counts=counts,
        )
        for item in applied:
            if item.status == "failed":
                try:
                    show_dead_letter(self._redis, item.entry, item.trace)
                except RedisError as error:  # The sweeper will list it.
                    logger.warning("Dead letter %s is not listed yet: %s", item.entry.delivery_id, error)
        return empty

    def _back_off(self, shards: Sequence[int]) -> float:
        """Keep the drains marked as pending, longer each time, so that they are not enqueued before."""
        with self._redis.pipeline(transaction=True) as pipeline:
            for shard in shards:
                pipeline.incr(failure_count_key(shard))
                pipeline.expire(failure_count_key(shard), 60)
            failures: int = max(pipeline.execute()[::2])
        seconds: float = min(FIRST_BACKOFF_SECONDS * 2 ** (failures - 1), LAST_BACKOFF_SECONDS)
        with self._redis.pipeline(transaction=False) as pipeline:
            for shard in shards:
                pipeline.set(drain_pending_key(shard), "1", px=int(seconds * 1000))
            pipeline.execute()
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


def _describe(shards: Sequence[int], counts: Counter[str], remarks: Iterable[str] = ()) -> str:
    shown = ("applied", "rejected", "parked", "failed", "ignored", "duplicate", "conflict")
    parts = [f"{counts[status]} {status}" for status in shown]
    done = ", ".join(part for part in parts if not part.startswith("0 "))
    return f"drain {name_shards(shards)}: " + "; ".join([done or "0 applied", *remarks])
