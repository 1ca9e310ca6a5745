"""Dead letters as RQ's failed jobs: one for each delivery that failed, whose requeue replays it. The delivery in
Postgres is the truth; a job carries its id and the traceback, never the payload."""

from __future__ import annotations

import msgspec
from redis import Redis
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry
from rq.results import Result
from rq.serializers import JSONSerializer
from sqlalchemy import Connection, Text, cast, select

from models.inbox import PUSH_SCRIPT, Entry, push_arguments, shard_of_key
from models.tables import DeliveryRow
from models.wakeups import QUEUE, REPLAY, enqueue_drains, open_queue

LISTED = 1_000
"""Dead letters that are shown as failed jobs; beyond that an operator needs no longer list."""

Identity = tuple[str, str]
"""Source and delivery id."""


def failed_deliveries(connection: Connection) -> dict[Identity, str]:
    """The dead letters, oldest first, with their tracebacks."""
    statement = (
        select(DeliveryRow.source, DeliveryRow.delivery_id, DeliveryRow.traceback)
        .where(DeliveryRow.status == "failed")
        .order_by(DeliveryRow.position)
        .limit(LISTED)
    )
    return {(source, delivery_id): trace or "" for source, delivery_id, trace in connection.execute(statement)}


def reconcile(redis: Redis, dead: dict[Identity, str]) -> None:
    """Make RQ's failed list hold one job for each of these dead letters, and nothing else. May be repeated."""
    queue = open_queue(redis)
    registry = queue.failed_job_registry
    shown: set[Identity] = set()
    for job_id in registry.get_job_ids(cleanup=False):
        identity = _identity_of(redis, job_id)
        if identity in dead and identity not in shown:
            shown.add(identity)
        else:
            registry.remove(job_id, delete_job=True)
    waiting = {_identity_of(redis, job_id) for job_id in queue.job_ids}
    for identity, trace in dead.items():
        if identity not in shown and identity not in waiting:
            _show(redis, registry, identity, trace)


def show_dead_letter(redis: Redis, source: str, delivery_id: str, trace: str) -> None:
    """Put one dead letter on the failed list at once, rather than with the next sweep."""
    _show(redis, open_queue(redis).failed_job_registry, (source, delivery_id), trace)


def replay(redis: Redis, connection: Connection, *, source: str, delivery_id: str) -> bool:
    """Push a dead letter's entry again, at the end of its shard. Says whether it was one. May be repeated: an entry
    that was replayed already is dropped as a duplicate."""
    statement = select(cast(DeliveryRow.entry, Text)).where(
        DeliveryRow.source == source, DeliveryRow.delivery_id == delivery_id, DeliveryRow.status == "failed"
    )
    text = connection.scalar(statement)
    if text is None:
        return False
    entry = msgspec.structs.replace(msgspec.json.decode(text, type=Entry), replays=True, waits=False)
    keys, arguments = push_arguments([entry])
    _, woken = redis.eval(PUSH_SCRIPT, len(keys), *keys, *arguments)
    enqueue_drains(open_queue(redis), [shard_of_key(key) for key in woken])
    return True


def _show(redis: Redis, registry: FailedJobRegistry, identity: Identity, trace: str) -> None:
    source, delivery_id = identity
    job = Job.create(
        REPLAY,
        args=[source, delivery_id],
        connection=redis,
        origin=QUEUE,
        status=JobStatus.FAILED,
        serializer=JSONSerializer,
        failure_ttl=-1,
        description=f"dead letter {delivery_id} of {source}",
    )
    with redis.pipeline(transaction=True) as pipeline:
        registry.add(job, ttl=-1, exc_string=trace, pipeline=pipeline)
        Result.create_failure(job, ttl=-1, exc_string=trace, pipeline=pipeline)
        pipeline.execute()


def _identity_of(redis: Redis, job_id: str) -> Identity | None:
    try:
        job = Job.fetch(job_id, connection=redis, serializer=JSONSerializer)
        if job.func_name == REPLAY and len(job.args) == 2:
            return str(job.args[0]), str(job.args[1])
    except Exception:  # A job that is gone, or not ours to read, shows no dead letter.
        return None
    return None
