"""Waits for outcomes of deliveries: by pub/sub messages, and by polling their keys each second.

Any number of senders wait on one connection. The message of a large outcome holds only its key, from which the outcome
is fetched; outcomes that were passed on are soon deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import msgspec
from redis.asyncio import Redis

from models.queue.inbox import OUTCOME_CHANNEL, RELEASE_SCRIPT, Outcome, OutcomeMessage, decode_outcome
from relay.notifications.background import run_together
from relay.notifications.subscription import subscribe
from relay.notifications.waiters import Waiters
from relay.redis_client import REDIS_ERRORS

LOOK_SECONDS = 1.0
"""Largest delay of an outcome whose message was lost."""
RELEASE_SECONDS = 0.2
"""Time until an outcome that was passed on is deleted."""
KEYS_AT_ONCE = 500
"""Keys per command, so that none blocks the server."""
FETCHED_AT_ONCE = 16
"""Outcomes per reply: each may have the maximum size."""


@dataclass(frozen=True, eq=False)
class _Waiter:
    """A request that waits for an outcome."""

    future: asyncio.Future[Outcome]
    accepted_at: datetime


class OutcomeWaiters:
    """This process' waiting senders, by the key of the outcome."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiters: Waiters[str, _Waiter] = Waiters()
        self._announced: set[str] = set()
        """Keys of outcomes that can be fetched."""
        self._some_announced = asyncio.Event()
        self._passed_on: set[str] = set()
        """Keys of outcomes that can be deleted."""

    @contextmanager
    def watch(self, key: str, *, accepted_at: datetime) -> Iterator[asyncio.Future[Outcome]]:
        """Gives a future for the outcome of this key. Enter it before the push. The outcome of an attempt that was
        accepted before `accepted_at` is ignored, as this delivery may be judged anew."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._passed_on.discard(key)  # It could be the next outcome that would be deleted.
        with self._waiters.add(key, _Waiter(future, accepted_at)):
            try:
                yield future
            finally:
                future.cancel()

    async def run(self) -> None:
        """Serve the waiting senders, until cancelled."""
        await run_together(
            subscribe(self._redis, OUTCOME_CHANNEL, self._on_message),
            self._fetch_announced(),
            self._look_each_second(),
            self._release_passed_on(),
        )

    def _on_message(self, message: bytes) -> None:
        announcement = msgspec.json.decode(message, type=OutcomeMessage)
        if announcement.outcome is not None:
            self._settle(announcement.key, announcement.outcome)
        else:
            self._note_announced([announcement.key])

    def _note_announced(self, keys: Iterable[str]) -> None:
        self._announced.update(key for key in keys if key in self._waiters)
        if self._announced:
            self._some_announced.set()

    async def _fetch_announced(self) -> None:
        while True:
            await self._some_announced.wait()
            self._some_announced.clear()
            keys, self._announced = list(self._announced), set()
            try:
                for part in _parts(keys, FETCHED_AT_ONCE):
                    values = cast("list[bytes | None]", await self._redis.mget(part))
                    for key, value in zip(part, values, strict=True):
                        if value is not None:
                            self._settle(key, decode_outcome(value))
            except REDIS_ERRORS:
                continue  # Polling finds them again within a second.

    async def _look_each_second(self) -> None:
        """Poll for outcomes whose message was lost."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                for part in _parts(self._waiters.keys(), KEYS_AT_ONCE):
                    async with self._redis.pipeline(transaction=False) as pipeline:
                        for key in part:
                            pipeline.exists(key)
                        there = await pipeline.execute()
                    self._note_announced(key for key, is_there in zip(part, there, strict=True) if is_there)
            except REDIS_ERRORS:
                continue

    async def _release_passed_on(self) -> None:
        while True:
            await asyncio.sleep(RELEASE_SECONDS)
            try:
                while self._passed_on:
                    await self._release([self._passed_on.pop() for _ in range(min(len(self._passed_on), KEYS_AT_ONCE))])
            except REDIS_ERRORS:
                continue  # They expire.

    async def _release(self, keys: list[str]) -> None:
        await self._redis.eval(RELEASE_SCRIPT, len(keys), *keys)

    def _settle(self, key: str, outcome: Outcome) -> None:
        for waiter in self._waiters.get(key):
            is_its_own = outcome.accepted_at is None or outcome.accepted_at >= waiter.accepted_at
            if is_its_own and not waiter.future.done():
                waiter.future.set_result(outcome)
                self._passed_on.add(key)


def _parts(keys: list[str], size: int) -> Iterator[list[str]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))
