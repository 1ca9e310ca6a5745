"""Shows dead letters as RQ's failed jobs: one per failed delivery; requeueing it replays the delivery. Postgres has the
truth; a job holds the delivery's id, command and session, and the traceback, never the payload."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from redis import Redis
from redis.exceptions import RedisError
from rq.executions import ExecutionRegistry
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry
from rq.results import Result
from rq.serializers import JSONSerializer
from sqlalchemy import Connection

from models.queue.inbox import (
    BACKLOG_BYTES_KEY,
    BACKLOG_KEY,
    ENTRY_BYTES,
    ENTRY_FIELD,
    WAKE_SECONDS,
    DeadLetterResolution,
    Entry,
    Identity,
    dedup_key,
    drain_pending_key,
    inbox_key,
    seen_value,
    shard_of,
)
from models.queue.job_queue import QUEUE, REPLAY, enqueue_drains, new_job_id, open_queue
from sessions.postgres.operations.dead_letters import DeadLetterFilter, FailedDelivery, entries_to_rule

LISTED = 1_000
"""Dead letters shown as failed jobs; a longer list helps no operator."""

DASHBOARD = "dashboard"
"""The author of replays in the journal: all operators of the dashboard share one password."""


class FailedList:
    """Keeps RQ's failed list in line with the dead letters."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._identities: dict[str, Identity | None] = {}
        """Dead letters of the jobs seen last time: they never change, and reading each costs a round trip."""

    def reconcile(self, dead: dict[Identity, FailedDelivery]) -> None:
        """Make the list show one job for each of these dead letters, and nothing else. May be repeated."""
        queue = open_queue(self._redis)
        registry = queue.failed_job_registry
        failed, waiting = registry.get_job_ids(cleanup=False), queue.job_ids
        self._identities = {job_id: self._identity_of(job_id) for job_id in (*failed, *waiting)}
        shown: set[Identity] = set()
        for job_id in failed:
            identity = self._identities[job_id]
            if identity in dead and identity not in shown:
                shown.add(identity)
            else:
                self._drop(job_id, registry)
        on_their_way = {self._identities[job_id] for job_id in waiting}
        for identity, failed_delivery in dead.items():
            if identity not in shown and identity not in on_their_way:
                _show(self._redis, registry, identity, failed_delivery)

    def _drop(self, job_id: str, registry: FailedJobRegistry) -> None:
        """Delete all keys of a failed job. RQ's own method raises for a job whose worker was killed: its execution has
        expired by then."""
        executions = ExecutionRegistry(job_id=job_id, connection=self._redis).key
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.zrem(registry.key, job_id)
            pipeline.delete(Job.key_for(job_id), Result.get_key(job_id), executions)  # type: ignore[no-untyped-call]
            pipeline.execute()

    def _identity_of(self, job_id: str) -> Identity | None:
        if job_id in self._identities:
            return self._identities[job_id]
        try:
            job = Job.fetch(job_id, connection=self._redis, serializer=JSONSerializer)
            return (str(job.args[0]), str(job.args[1])) if job.func_name == REPLAY else None
        except RedisError:
            raise
        except Exception:  # A job that is gone or unreadable shows no dead letter.
            return None


def show_dead_letter(redis: Redis, entry: Entry, trace: str) -> None:
    """Put a dead letter on the failed list at once, without waiting for the sweeper."""
    failed = FailedDelivery(entry.command, entry.session_id, trace)
    _show(redis, open_queue(redis).failed_job_registry, (entry.source, entry.delivery_id), failed)


def replay(redis: Redis, connection: Connection, *, source: str, delivery_id: str) -> bool:
    """Push a dead letter's entry again, at the end of its shard. Returns whether it was a dead letter. May be repeated:
    an entry that was already replayed is dropped as a duplicate."""
    resolution = DeadLetterResolution(by=DASHBOARD, at=datetime.now(UTC))
    entries, _ = entries_to_rule(
        connection, DeadLetterFilter(status="failed", source=source, delivery_id=delivery_id), resolution
    )
    if not entries:
        return False
    _push(redis, entries[0])
    return True


def _push(redis: Redis, entry: Entry) -> None:
    """Push the resolution of a dead letter. Unlike a webhook it is always accepted: whether it is a repeat is decided
    by the dead letter when the entry is applied."""
    shard, encoded = shard_of(entry.session_id), msgspec.json.encode(entry)
    with redis.pipeline(transaction=True) as pipeline:
        pipeline.set(dedup_key(entry.source, entry.delivery_id), seen_value(entry), nx=True)
        pipeline.xadd(inbox_key(shard), {ENTRY_FIELD: encoded})
        pipeline.hincrby(BACKLOG_KEY, entry.source, 1)
        pipeline.hincrby(BACKLOG_BYTES_KEY, entry.source, len(encoded) + ENTRY_BYTES)
        pipeline.set(drain_pending_key(shard), "1", nx=True, ex=WAKE_SECONDS)
        *_, is_woken = pipeline.execute()
    if is_woken:
        enqueue_drains(open_queue(redis), [shard])


def _show(redis: Redis, registry: FailedJobRegistry, identity: Identity, failed: FailedDelivery) -> None:
    source, delivery_id = identity
    where = f" in {failed.session_id}" if failed.session_id else ""
    job = Job.create(
        REPLAY,
        args=[source, delivery_id],
        id=new_job_id("dead-letter"),
        connection=redis,
        origin=QUEUE,
        status=JobStatus.FAILED,
        serializer=JSONSerializer,
        failure_ttl=-1,
        description=f"dead letter {delivery_id} of {source}: {failed.command}{where}",
        meta={
            "source": source,
            "delivery_id": delivery_id,
            "command": failed.command,
            "session_id": failed.session_id,
        },
    )
    job.ended_at = datetime.now(UTC)
    with redis.pipeline(transaction=True) as pipeline:
        registry.add(job, ttl=-1, exc_string=failed.trace, pipeline=pipeline)
        job.save(pipeline=pipeline)  # RQ's registry leaves out the metadata.
        Result.create_failure(job, ttl=-1, exc_string=failed.trace, pipeline=pipeline)
        pipeline.execute()
