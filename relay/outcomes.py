"""Waiting for what becomes of a delivery: announcements as they come, and a look at the keys each second.

Any number of senders wait on one connection; who waits for nothing any more leaves no trace.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import msgspec
from redis.asyncio import Redis

from models.inbox import OUTCOME_CHANNEL, Announcement, Outcome
from relay.connections import RedisTrouble
from relay.subscription import follow

LOOK_SECONDS = 1.0
"""How late an outcome may come whose announcement was missed."""
KEYS_AT_ONCE = 500
"""Keys in one MGET, so that no single command holds up the server."""

logger = logging.getLogger(__name__)


class OutcomeWatch:
    """The senders that wait in this process, by the key of the outcome they wait for."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: dict[str, dict[asyncio.Future[Outcome], datetime]] = {}

    @contextmanager
    def watch(self, key: str, *, accepted_at: datetime) -> Iterator[asyncio.Future[Outcome]]:
        """A future for the outcome of this key, within the block. To be entered before the push. The outcome of what
        was accepted before that moment is not taken for it: this delivery may be judged anew."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, {})[future] = accepted_at
        try:
            yield future
        finally:
            waiting = self._waiting[key]
            del waiting[future]
            if not waiting:
                del self._waiting[key]
            future.cancel()

    async def run(self) -> None:
        """Serve those that wait, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow(self._redis, OUTCOME_CHANNEL, self._hear))
            tasks.create_task(self._look_each_second())

    def _hear(self, message: bytes) -> None:
        try:
            announcement = msgspec.json.decode(message, type=Announcement)
        except msgspec.DecodeError:
            logger.warning("An announcement on %s could not be read.", OUTCOME_CHANNEL)
        else:
            self._settle(announcement.key, announcement.outcome)

    async def _look_each_second(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            keys = list(self._waiting)
            try:
                for start in range(0, len(keys), KEYS_AT_ONCE):
                    await self._look(keys[start : start + KEYS_AT_ONCE])
            except RedisTrouble:
                continue  # Whoever waits is told in time that it is still pending.

    async def _look(self, keys: list[str]) -> None:
        for key, value in zip(keys, await self._redis.mget(keys), strict=True):
            if value is not None:
                self._settle(key, msgspec.json.decode(value, type=Outcome))

    def _settle(self, key: str, outcome: Outcome) -> None:
        for future, accepted_at in self._waiting.get(key, {}).items():
            if not future.done() and (outcome.accepted_at is None or outcome.accepted_at >= accepted_at):
                future.set_result(outcome)
