"""The sweeper: re-enqueues missed drains, requeues expired leases, repairs the failed list and the backlogs, enqueues
the embedding of new texts, and prunes old deliveries (worker/retention.py).

One sweeper leads among all hosts; every sweeper re-enqueues drains. All duties are repeatable and retried each turn.
"""

from __future__ import annotations

import logging
import secrets
import signal
import time
from collections.abc import Callable
from typing import TypeVar, cast

import msgspec
from redis import Redis
from redis.exceptions import RedisError, ResponseError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from models.process.log_repetition import TROUBLE
from models.process.log_setup import configure_logging, write_counts
from models.process.parent_death import exit_with_parent
from models.queue.inbox import (
    BACKLOG_BYTES_KEY,
    BACKLOG_KEY,
    JOURNAL_CHANNEL,
    SHARDS,
    WAKE_SECONDS,
    drain_pending_key,
    inbox_key,
)
from models.queue.job_queue import SWEEPER_KEY, enqueue_drains, enqueue_embedding, open_queue
from models.queue.metrics import LEASES_EXPIRED, add_counts
from models.queue.redis_options import REDIS_OPTIONS
from models.queue.task_notifications import TASKS_CHANNEL, TaskNotification
from models.settings import Settings, read_settings
from sessions.api_keys import KeyRegister
from sessions.embeddings.configured import configured_encoder
from sessions.postgres.commands.missing_passages import MissingPassages
from sessions.postgres.connections import create_engine, diagnose
from sessions.postgres.embeddings.vector_table import is_missing
from sessions.postgres.operations.dead_letters import failed_deliveries
from sessions.postgres.tasks.leases import RETURNED_AT_ONCE, fail_stuck, forget_agents, requeue_expired
from worker.dead_letters import LISTED, FailedList
from worker.health import Heartbeat
from worker.retention import Retention
from worker.worker_process import wait_for_schema

T = TypeVar("T")

logger = logging.getLogger(__name__)

TURN_SECONDS = 1.0
TURN_LIMIT_SECONDS = 60
"""A turn that hangs ends its process, which is restarted: a server that was cut off may not answer for hours."""
TERM_SECONDS = 10
"""Another sweeper takes over from a dead leader after that."""
RARE_TURN_SECONDS = 10.0
"""Some duties are not urgent. Tasks whose dependency failed are usually failed when that ends; the sweeper covers those
that were imported, or delegated at that moment. Agents have gone for a day when they are forgotten."""
SPLIT_SECONDS = 0.5
"""The time that a turn spends on passages of texts that an earlier version has stored."""
SPLIT_AGAIN_SECONDS = 600.0
"""After that, the workers of an earlier version have stopped that had still stored texts."""

CLEAR_BACKLOG_SCRIPT = """
for i = 3, #KEYS do
  if redis.call('XLEN', KEYS[i]) > 0 then return 0 end
end
return redis.call('DEL', KEYS[1], KEYS[2])
"""
"""Deletes all backlogs if no entry waits: KEYS BACKLOG_KEY, BACKLOG_BYTES_KEY and all streams. Returns whether there
was one."""


class Sweeper:
    """One sweeper. All re-enqueue missed drains; only the leader has the other duties."""

    def __init__(self, redis: Redis, engine: Engine, *, retention_days: int, embeds: bool = False) -> None:
        self._redis = redis
        self._engine = engine
        self._embeds = embeds
        self.name = secrets.token_hex(8)
        """The value of the leader's key."""
        self._failed_list = FailedList(redis)
        self._register = KeyRegister(engine, redis)
        self._retention = Retention(redis, engine, days=retention_days)
        self._rare_turn_at = 0.0
        self._missing = MissingPassages(engine)
        self._split_again_at: float | None = None
        """When the texts are checked a second time; None until this sweeper leads."""
        self._failures: dict[str, str] = {}
        """Duties that failed in this turn, with the cause."""

    def sweep(self) -> bool:
        """Take one turn: do each duty, even if others fail. Returns whether all succeeded, for which Redis and Postgres
        must have answered. Does not raise."""
        # Every sweeper does this: only one can set a mark, and webhooks must not wait for a dead leader's term to end.
        self._do("enqueue missed drains", lambda: wake_forgotten(self._redis))
        leads = self._do("keep its leadership", self._is_leader)
        if leads:
            self._lead()
        elif leads is False:
            self._do("reach Postgres", self._reach_postgres)
        return self._report()

    def _lead(self) -> None:
        self._do("clear the backlog", lambda: clear_backlog(self._redis))
        self._do("copy the API keys to Redis", self._register.synchronize)
        self._do("requeue expired leases", lambda: return_leases(self._redis, self._engine))
        if time.monotonic() >= self._rare_turn_at:
            self._do("fail tasks whose dependency failed", lambda: fail_stuck_tasks(self._redis, self._engine))
            self._do("forget agents that have gone", lambda: forget_gone_agents(self._engine))
            self._rare_turn_at = time.monotonic() + RARE_TURN_SECONDS
        self._do("update the failed list", self._list_dead_letters)
        if self._embeds:
            self._do("enqueue the embedding", lambda: embed_new_texts(self._redis, self._engine))
        if self._split_again_at is not None and time.monotonic() >= self._split_again_at:
            self._missing, self._split_again_at = MissingPassages(self._engine), float("inf")
        if not self._missing.is_done:
            self._do("split stored texts for the search", self._split)
        if self._retention.is_due():
            self._do("prune old deliveries", self._retention.prune)

    def _split(self) -> None:
        """Write missing passages for SPLIT_SECONDS. The next turns continue."""
        if self._split_again_at is None:
            self._split_again_at = time.monotonic() + SPLIT_AGAIN_SECONDS
        self._missing.write(seconds=SPLIT_SECONDS)
        if self._missing.is_done and self._missing.written:
            logger.info("Split %d stored records for the search.", self._missing.written)

    def _do(self, duty: str, work: Callable[[], T]) -> T | None:
        """Do one duty, and record a failure."""
        try:
            return work()
        except (RedisError, SQLAlchemyError) as error:
            self._failures[duty] = _cause(error)
        except Exception as error:  # A bug in one duty, or in RQ, must not stop the others.
            self._failures[duty] = f"Bug: {type(error).__name__}"
            logger.exception("Bug: the sweeper could not %s.", duty)
        return None

    def _report(self) -> bool:
        """Log why duties failed in this turn. Repeated causes are counted, even if other duties were due before.
        Returns whether none failed."""
        for cause in dict.fromkeys(self._failures.values()):
            duties = ", ".join(duty for duty, its_cause in self._failures.items() if its_cause == cause)
            logger.warning(
                "The sweeper could not %s; it retries each second. %s", duties, cause, extra={TROUBLE: cause}
            )
        has_failed, self._failures = bool(self._failures), {}
        return not has_failed

    def _list_dead_letters(self) -> None:
        with self._engine.connect() as connection:
            dead = failed_deliveries(connection, limit=LISTED)
        self._failed_list.reconcile(dead)

    def _reach_postgres(self) -> None:
        """Ask Postgres for nothing, since only the leader has duties there."""
        with self._engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1")

    def _is_leader(self) -> bool:
        if self._redis.set(SWEEPER_KEY, self.name, nx=True, ex=TERM_SECONDS):
            return True
        holder = cast("bytes | None", self._redis.get(SWEEPER_KEY))
        return holder == self.name.encode() and bool(self._redis.expire(SWEEPER_KEY, TERM_SECONDS))


def wake_forgotten(redis: Redis) -> list[int]:
    """Enqueue drains of shards with entries and no pending mark: their drain died, or RQ lost its job. Each gets a job
    of its own, so that one whose drains always die keeps no other from being drained."""
    with redis.pipeline(transaction=False) as pipeline:
        for shard in range(SHARDS):
            pipeline.xlen(inbox_key(shard))
        sizes: list[int] = pipeline.execute()
    woken = [s for s in range(SHARDS) if sizes[s] and redis.set(drain_pending_key(s), "1", nx=True, ex=WAKE_SECONDS)]
    enqueue_drains(open_queue(redis), woken, together=False)
    return woken


def clear_backlog(redis: Redis) -> None:
    """Reset the backlog counts if no entry waits: somebody has deleted a stream by hand."""
    keys = [BACKLOG_KEY, BACKLOG_BYTES_KEY, *map(inbox_key, range(SHARDS))]
    if redis.eval(CLEAR_BACKLOG_SCRIPT, len(keys), *keys):
        logger.warning("Reset %s: no entries are waiting.", BACKLOG_KEY)


def return_leases(redis: Redis, engine: Engine) -> None:
    """Requeue tasks with expired leases, or fail them after their last attempt; notify waiting requests."""
    returned = RETURNED_AT_ONCE
    while returned >= RETURNED_AT_ONCE:
        with engine.begin() as connection:
            news, sessions = requeue_expired(connection)
        returned = len(news.claimable) + len(news.settled)
        _publish(redis, news, sessions)
        if returned:
            add_counts(redis, {LEASES_EXPIRED.name: returned})


def fail_stuck_tasks(redis: Redis, engine: Engine) -> None:
    """Fail tasks that depend on one that will not be completed; notify waiting requests."""
    with engine.begin() as connection:
        news, sessions = fail_stuck(connection)
    _publish(redis, news, sessions)


def _publish(redis: Redis, news: TaskNotification, sessions: set[str]) -> None:
    if not news:
        return
    with redis.pipeline(transaction=True) as pipeline:
        pipeline.publish(JOURNAL_CHANNEL, "\n".join(sorted(sessions)))
        pipeline.publish(TASKS_CHANNEL, msgspec.json.encode(news))
        pipeline.execute()


def forget_gone_agents(engine: Engine) -> int:
    """Forget unregistered agents that have gone, or exceed the limit; returns their number."""
    with engine.begin() as connection:
        return forget_agents(connection)


def embed_new_texts(redis: Redis, engine: Engine) -> None:
    """Enqueue the embedding of texts, if there are any without vectors, or the table of vectors is gone."""
    with engine.connect() as connection:
        has_new = connection.exec_driver_sql("SELECT EXISTS (SELECT FROM passages_to_embed)").scalar_one()
        is_gone = is_missing(connection)
    if has_new or is_gone:
        enqueue_embedding(redis)


def main() -> None:
    """Sweep until stopped. Started by the supervisor."""
    exit_with_parent()
    settings = read_settings()
    configure_logging(settings)
    run(settings)


def run(settings: Settings) -> None:
    """Sweep forever; the next turn retries failed duties."""
    redis = Redis.from_url(settings.redis_url, **REDIS_OPTIONS)
    engine = create_engine(settings, application_name="session-relay sweeper", pool_size=1)
    wait_for_schema(engine)
    sweeper = Sweeper(
        redis, engine, retention_days=settings.delivery_retention_days, embeds=configured_encoder(settings) is not None
    )
    health = Heartbeat(settings.health_dir)
    while True:
        signal.alarm(TURN_LIMIT_SECONDS)
        if sweeper.sweep():
            health.beat()
        write_counts()
        time.sleep(TURN_SECONDS)


def _cause(error: RedisError | SQLAlchemyError) -> str:
    """Names the error without the server's text, which may quote stored data."""
    if isinstance(error, SQLAlchemyError):
        return diagnose(error)
    code = str(error).partition(" ")[0]
    return code if isinstance(error, ResponseError) and code.isupper() else type(error).__name__


if __name__ == "__main__":
    main()
