"""Enqueues drains of shards with new entries, in its own thread, because RQ blocks.

This only saves time: the worker's sweeper enqueues the drains that it misses.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from queue import Empty, SimpleQueue
from threading import Thread

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from models.queue.job_queue import enqueue_drains, open_queue
from models.queue.redis_options import REDIS_OPTIONS
from relay.redis_client import ANSWER_TIMEOUT_SECONDS, CONNECT_TIMEOUT_SECONDS, REDIS_ERRORS

logger = logging.getLogger(__name__)


class DrainEnqueuer:
    """A thread that enqueues drain jobs, together for all shards that were marked meanwhile."""

    def __init__(self, redis_url: str) -> None:
        self._redis = Redis.from_url(
            redis_url,
            **REDIS_OPTIONS,
            socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
            socket_timeout=ANSWER_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 1),
        )
        self._shards: SimpleQueue[int | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="drain-enqueuer", daemon=True)

    def start(self) -> None:
        """Start the thread. Call it once."""
        self._thread.start()

    def enqueue(self, shards: Iterable[int]) -> None:
        """Enqueue drains of these shards soon. Returns at once, and never fails."""
        for shard in shards:
            self._shards.put(shard)

    def stop(self) -> None:
        """Wake what was asked for, then end the thread; it is left behind if Redis does not let it end."""
        self._shards.put(None)
        self._thread.join(ANSWER_TIMEOUT_SECONDS)
        self._redis.close()

    def _run(self) -> None:
        queue = open_queue(self._redis)
        stopped = False
        while not stopped:
            batch = {self._shards.get()}
            try:
                while True:
                    batch.add(self._shards.get_nowait())
            except Empty:
                pass
            stopped = None in batch
            try:
                enqueue_drains(queue, sorted(shard for shard in batch if shard is not None))
            except REDIS_ERRORS as error:
                cause = type(error).__name__
                logger.warning("Could not enqueue drains (%s); the sweeper will.", cause)
