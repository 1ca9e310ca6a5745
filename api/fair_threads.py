"""Threads for blocking work, shared fairly: each source has at most a share of them, and those that wait take turns."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from models.errors import TooManyRequests, Unavailable

T = TypeVar("T")

RELAY: Final = ""
"""The source of the relay's own reads, for which threads are kept free: they never wait for those of users."""
RELAY_THREADS = 4
"""Beside those for users: for two services that look into the database now and then, and for who asks how it is."""
SOURCES_AT_ONCE = 4
"""How many sources it takes to hold all threads: one alone gets a quarter, so that others find some free."""
SMALLEST_SHARE = 2
"""Threads: the quick work of a source goes on beside one that is slow."""
MAX_WAITING = 300
"""Of one source: more than it has places to wait for events, all of which one event may wake."""
RETRY_AFTER_SECONDS = 5


class FairThreads:
    """A thread pool with a share for each source. To be used from one event loop."""

    def __init__(self, threads: int, *, name: str) -> None:
        self._free = threads
        self._share = max(SMALLEST_SHARE, threads // SOURCES_AT_ONCE)
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """In the order in which the sources get their turn."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._relay_pool = ThreadPoolExecutor(RELAY_THREADS, thread_name_prefix=f"{name}-relay")

    async def run(self, source: str, work: Callable[[], T], *, wait_seconds: float, work_seconds: float) -> T:
        """Return what `work` returns, done in a thread as soon as it is the source's turn. Once begun it goes on, and
        counts, also when nobody waits for it any more. Raises TooManyRequests if too much of the source is under way,
        Unavailable if its turn does not come in time otherwise, and TimeoutError if the work takes too long."""
        loop = asyncio.get_running_loop()
        if source == RELAY:
            async with asyncio.timeout(work_seconds):
                return await loop.run_in_executor(self._relay_pool, work)
        try:
            async with asyncio.timeout(wait_seconds):
                await self._enter(source, loop)
        except TimeoutError as error:
            if self.has_share(source):
                raise too_many() from error
            raise Unavailable("Too much is being read at the moment; try again in some seconds.") from error
        try:
            begun: Future[T] = self._pool.submit(work)
        except BaseException:
            self._leave(source)
            raise

        def end(_: Future[T]) -> None:
            with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
                loop.call_soon_threadsafe(self._leave, source)

        begun.add_done_callback(end)
        async with asyncio.timeout(work_seconds):
            return await asyncio.wrap_future(begun)

    def has_share(self, source: str) -> bool:
        """Whether the source has all the threads that it may have at a time."""
        return self._held[source] >= self._share

    def close(self) -> None:
        """Begin nothing more; what is under way ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._relay_pool.shutdown(wait=False, cancel_futures=True)

    async def _enter(self, source: str, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for the source's turn, and take a thread."""
        if self._free and not self.has_share(source):
            self._take(source)
            return
        waiting = self._waiting.setdefault(source, deque())
        if len(waiting) >= MAX_WAITING:
            raise too_many()
        turn = loop.create_future()
        waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave(source)
            elif turn in waiting:
                waiting.remove(turn)
                self._forget_if_idle(source)
            raise

    def _take(self, source: str) -> None:
        self._free -= 1
        self._held[source] += 1

    def _leave(self, source: str) -> None:
        self._free += 1
        self._held[source] -= 1
        if not self._held[source]:
            del self._held[source]
        while self._free and (following := self._next_source()) is not None:
            waiting = self._waiting.pop(following)
            turn = waiting.popleft()
            if waiting:
                self._waiting[following] = waiting  # Behind all others.
            if not turn.done():
                self._take(following)
                turn.set_result(None)

    def _next_source(self) -> str | None:
        return next((source for source in self._waiting if not self.has_share(source)), None)

    def _forget_if_idle(self, source: str) -> None:
        if not self._waiting.get(source):
            self._waiting.pop(source, None)


def too_many() -> TooManyRequests:
    """The refusal of a source that has more under way than its share."""
    return TooManyRequests(
        "This sender reads too much at once: its other reads take all of its share.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
        hint="Send fewer requests at a time, and ask for less: one session, a shorter period, a smaller limit.",
    )
