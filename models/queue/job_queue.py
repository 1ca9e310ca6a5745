"""The RQ queue of the workers: its allowed jobs, and enqueuing the drains of shards."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

QUEUE = "session-relay"
WORKERS_KEY = WORKERS_BY_QUEUE_KEY % QUEUE
"""RQ's set of the keys of all workers on the queue."""
SWEEPER_KEY = "sr:sweeper"
"""Exists while a sweeper runs, which implies that workers are supervised."""
JOBS_MODULE = "worker.jobs"
"""The name of the jobs' module for all processes on one Redis, installed or run from a checkout."""
DRAIN = f"{JOBS_MODULE}.drain"
REPLAY = f"{JOBS_MODULE}.replay"
EMBEDDINGS_QUEUE = "session-relay-embeddings"
"""The queue of the embedder, which makes the vectors of stored texts."""
EMBED = f"{JOBS_MODULE}.embed"
ALLOWED_JOBS = frozenset({DRAIN, REPLAY, EMBED})
"""RQ imports and calls any dotted name in a job; workers reject all but these."""

DRAIN_TIMEOUT_SECONDS = 60
"""Kills a drain that hangs; normally a drain stops after 5 s and its current statement."""
EMBED_TIMEOUT_SECONDS = 300
"""Kills an embedding that hangs; normally it stops after 20 s and its current batch."""
KEEP_ABANDONED_SECONDS = 60
"""Expiry of killed drains in RQ's registry of failed jobs. They are not dead letters: the drain is just repeated."""


def open_queue(connection: Redis) -> Queue:
    """Open the queue with the JSON serializer."""
    return Queue(QUEUE, connection=connection, serializer=JSONSerializer)


def enqueue_drains(queue: Queue, shards: Sequence[int], *, together: bool = True) -> None:
    """Enqueue drains of shards, in one round trip: one job for all of them, since a job and its transaction cost as
    much as dozens of webhooks, or a job for each, for several workers. Safe to repeat."""
    parts = [shards] if together and shards else [[shard] for shard in shards]
    jobs: list[Any] = [
        Queue.prepare_data(
            DRAIN,
            args=list(part),
            timeout=DRAIN_TIMEOUT_SECONDS,
            result_ttl=0,  # With results, RQ would keep 5 kB per job; the worker's log has the details.
            failure_ttl=KEEP_ABANDONED_SECONDS,
            description=f"drain {name_shards(part)}",
            job_id=new_job_id("drain"),
        )
        for part in parts
    ]
    if jobs:
        queue.enqueue_many(jobs)


def enqueue_embedding(connection: Redis) -> None:
    """Enqueue a job that embeds the texts without vectors, unless one is waiting."""
    queue = Queue(EMBEDDINGS_QUEUE, connection=connection, serializer=JSONSerializer)
    if queue.count == 0:
        queue.enqueue(
            EMBED,
            job_timeout=EMBED_TIMEOUT_SECONDS,
            result_ttl=0,
            failure_ttl=KEEP_ABANDONED_SECONDS,
            description="embed texts",
            job_id=new_job_id("embed"),
        )


def new_job_id(kind: str) -> str:
    """Return an id that tells people the kind of a job: rq-dashboard shows ids beside descriptions."""
    return f"{kind}-{secrets.token_hex(8)}"


def name_shards(shards: Sequence[int]) -> str:
    """Name shards for people, such as "shard 03" or "shards 03 11"."""
    numbers = " ".join(f"{shard:02d}" for shard in shards)
    return f"shard {numbers}" if len(shards) == 1 else f"shards {numbers}"
