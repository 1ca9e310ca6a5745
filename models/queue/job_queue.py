"""Waking workers: the RQ queue, the jobs that are allowed on it, and how a shard's drain is put there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

QUEUE = "session-relay"
WORKERS_KEY = WORKERS_BY_QUEUE_KEY % QUEUE
"""The set of the keys of all workers that RQ lists."""
SWEEPER_KEY = "sr:sweeper"
"""Present while a sweeper runs, which is where workers are supervised."""
DRAIN = "worker.jobs.drain"
REPLAY = "worker.jobs.replay"
ALLOWED_JOBS = frozenset({DRAIN, REPLAY})
"""RQ imports and calls any dotted name that a job carries; the worker refuses all but these."""

DRAIN_TIMEOUT_SECONDS = 60
"""A drain stops by itself after 5 s and the statement in hand; this is for one that hangs."""
KEEP_ABANDONED_SECONDS = 60
"""A drain that was killed is no dead letter: it is simply done again, so it leaves the failed list soon."""


def open_queue(connection: Redis) -> Queue:
    """The one queue, with the JSON serializer."""
    return Queue(QUEUE, connection=connection, serializer=JSONSerializer)


def enqueue_drains(queue: Queue, shards: Iterable[int]) -> None:
    """Put one drain job for each shard on the queue, in one round trip. Repeating it only costs time."""
    jobs: list[Any] = [
        Queue.prepare_data(
            DRAIN,
            args=[shard],
            timeout=DRAIN_TIMEOUT_SECONDS,
            result_ttl=0,  # With a result RQ keeps 5 kB of each; what a drain did is in the worker's log.
            failure_ttl=KEEP_ABANDONED_SECONDS,
            description=f"drain shard {shard:02d}",
        )
        for shard in shards
    ]
    if jobs:
        queue.enqueue_many(jobs)
