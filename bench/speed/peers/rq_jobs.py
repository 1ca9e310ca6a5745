"""RQ: a job per webhook, and workers that do not fork for each job."""

from __future__ import annotations

import os

from redis import Redis
from rq import Queue, SimpleWorker
from starlette.concurrency import run_in_threadpool

from bench.speed.peers.effects import apply

QUEUE = "bench"
queue = Queue(QUEUE, connection=Redis.from_url(os.environ["REDIS_URL"]))


async def enqueue(body: str) -> None:
    """Enqueue the job of a webhook, without keeping its result."""
    await run_in_threadpool(queue.enqueue, apply, body, result_ttl=0)


if __name__ == "__main__":
    SimpleWorker([queue], connection=queue.connection).work(logging_level="WARNING")
