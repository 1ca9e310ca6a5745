"""Wakes requests that follow a session's journal when it grows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from redis.asyncio import Redis

from models.errors import Unavailable
from models.queue.inbox import JOURNAL_CHANNEL
from relay.limits.concurrency import ConcurrencyLimiter
from relay.notifications.background import run_together
from relay.notifications.subscription import subscribe
from relay.notifications.waiters import Waiters

LOOK_SECONDS = 2.0
"""Largest delay of an event whose message was lost."""
MAX_LISTENERS = 1_000
"""Concurrent listeners."""

FindPositions = Callable[[Collection[str]], Awaitable[Mapping[str, int]]]
"""Returns the last position of each session's journal. Raises Unavailable."""


class JournalNotifier:
    """Notifies this process' requests that wait for events, by session."""

    def __init__(self, redis: Redis, find_positions: FindPositions, *, limit: int = MAX_LISTENERS) -> None:
        self._redis = redis
        self._find_positions = find_positions
        self._waiters: Waiters[str, asyncio.Event] = Waiters()
        self._positions: dict[str, int] = {}
        """Last positions of the followed journals, as of the last poll."""
        self._limiter = ConcurrencyLimiter(limit)

    async def run(self) -> None:
        """Wake listeners, until cancelled."""
        await run_together(
            subscribe(self._redis, JOURNAL_CHANNEL, self._on_message),
            self._look_now_and_then(),
        )

    def require_place(self, source: str) -> None:
        """Raise TooManyRequests or Unavailable if no slot is free for the source."""
        self._limiter.require_free_slot(source)

    @contextmanager
    def listen(self, session_id: str, *, source: str) -> Iterator[asyncio.Event]:
        """Gives an event that is set whenever the session's journal grows. Raises as `require_place` does."""
        try:
            with self._limiter.acquire(source), self._waiters.add(session_id, asyncio.Event()) as grown:
                yield grown
        finally:
            if session_id not in self._waiters:
                self._positions.pop(session_id, None)

    def _on_message(self, message: bytes) -> None:
        for session_id in message.decode().split("\n"):
            self._wake(session_id)

    def _wake(self, session_id: str) -> None:
        for grown in self._waiters.get(session_id):
            grown.set()

    async def _look_now_and_then(self) -> None:
        """Poll the journals of all listeners at once: polling for each of them would be far more expensive."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            session_ids = self._waiters.keys()
            if not session_ids:
                continue
            try:
                found = await self._find_positions(session_ids)
            except Unavailable:
                continue
            for session_id, position in found.items():
                if session_id in self._waiters and self._positions.get(session_id) != position:
                    self._positions[session_id] = position
                    self._wake(session_id)
