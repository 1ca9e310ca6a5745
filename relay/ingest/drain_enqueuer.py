"""Waking workers for shards that have something new: in a thread of its own, because RQ blocks.

Waking only saves time: what it fails to wake, the worker's sweeper finds.
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
    """A thread that puts drain jobs on the queue, together for all shards that were marked meanwhile."""

    def __init__(self, redis_url: str) -> None:
        self._redis = Redis.from_url(
            redis_url,
            **REDIS_OPTIONS,
            socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
            socket_timeout=ANSWER_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 1),
        )
        self._shards: SimpleQueue[int | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="waker", daemon=True)

    def start(self) -> None:
        """Begin. To be called once."""
        self._thread.start()

    def enqueue(self, shards: Iterable[int]) -> None:
        """Have these shards drained soon. Returns at once, and never fails."""
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
                logger.warning("Could not wake %d shards (%s); the sweeper will.", len(batch), type(error).__name__)
