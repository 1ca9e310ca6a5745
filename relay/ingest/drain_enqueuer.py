"""Enqueues drains of shards with new entries, in its own thread, because RQ blocks.

This only saves time: the worker's sweeper enqueues the drains that it misses.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from queue import Empty, SimpleQueue
from threading import Thread

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from models.queue.job_queue import enqueue_drains, open_queue
from models.queue.redis_options import REDIS_OPTIONS
from relay.redis_client import ANSWER_TIMEOUT_SECONDS, CONNECT_TIMEOUT_SECONDS, REDIS_ERRORS

GATHER_SECONDS = 0.05
"""Longest time for which shards are gathered while jobs wait: the workers are busy, and a job for several shards costs
as much as one for one."""
LOOK_SECONDS = 0.005
"""Time between two looks whether jobs wait."""

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
        shards: set[int] = set()
        is_stopped = False
        while not is_stopped:
            is_stopped = not self._take(shards, wait_seconds=None)
            try:
                gather_until = time.monotonic() + GATHER_SECONDS
                while not is_stopped and queue.count and time.monotonic() < gather_until:
                    is_stopped = not self._take(shards, wait_seconds=LOOK_SECONDS)
                enqueue_drains(queue, sorted(shards))
            except REDIS_ERRORS as error:
                cause = type(error).__name__
                logger.warning("Could not enqueue drains of %d shards (%s); the sweeper will.", len(shards), cause)
            shards.clear()

    def _take(self, shards: set[int], *, wait_seconds: float | None) -> bool:
        """Take the shards that were asked for; at first wait for one, at most for the time. Returns False when the
        thread is to end."""
        ends_at = None if wait_seconds is None else time.monotonic() + wait_seconds
        while True:
            try:
                left = None if ends_at is None else max(0.0, ends_at - time.monotonic())
                shard = self._shards.get(timeout=left) if not shards or ends_at else self._shards.get_nowait()
            except Empty:
                return True
            if shard is None:
                return False
            shards.add(shard)
