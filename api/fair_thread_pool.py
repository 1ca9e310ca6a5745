"""A thread pool shared fairly among sources: each gets at most its share, and waiting sources take turns."""

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
"""The source of the relay's own reads. They have reserved threads and never wait for those of users."""
RELAY_THREADS = 4
"""Reserved threads beside those for users: for two services that poll the database, and for health checks."""
SOURCES_AT_ONCE = 4
"""The number of sources that hold all threads: each gets at most a quarter, so that others find free ones."""
SMALLEST_SHARE = 2
"""The minimum number of threads per source, so that its quick work continues beside slow work, but at most half of
them."""
MAX_WAITING = 300
"""The limit per source. It exceeds a source's number of event waiters, all of which one event may wake."""
RETRY_AFTER_SECONDS = 5


class FairThreads:
    """A thread pool with a share for each source. Must be used from one event loop."""

    def __init__(
        self, threads: int, *, name: str, relay_threads: int = RELAY_THREADS, max_waiting: int = MAX_WAITING
    ) -> None:
        self.size = threads
        """The threads for users."""
        self._free = threads
        self._share = max(min(SMALLEST_SHARE, threads // 2), threads // SOURCES_AT_ONCE, 1)
        self._max_waiting = max_waiting
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """Waiting work, in the order in which the sources get their turn."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._relay_pool = ThreadPoolExecutor(max(1, relay_threads), thread_name_prefix=f"{name}-relay")

    async def run(self, source: str, work: Callable[[], T], *, wait_seconds: float, work_seconds: float) -> T:
        """Run `work` in a thread when it is the source's turn, and return its result. Started work runs to its end, and
        counts against the share, even if the caller is gone. Raises TooManyRequests if the source exceeds its share,
        Unavailable if its turn does not come in time otherwise, and TimeoutError if the work takes too long."""
        loop = asyncio.get_running_loop()
        if source == RELAY:
            async with asyncio.timeout(work_seconds):
                return await loop.run_in_executor(self._relay_pool, work)
        try:
            async with asyncio.timeout(wait_seconds):
                await self._acquire(source, loop)
        except TimeoutError as error:
            if self.has_share(source):
                raise too_many() from error
            raise Unavailable("The relay is serving too many reads; retry in a few seconds.") from error
        try:
            begun: Future[T] = self._pool.submit(work)
        except BaseException:
            self._release(source)
            raise

        def release(_: Future[T]) -> None:
            with contextlib.suppress(RuntimeError):  # Raised by a closed loop, which has no waiters.
                loop.call_soon_threadsafe(self._release, source)

        begun.add_done_callback(release)
        async with asyncio.timeout(work_seconds):
            return await asyncio.wrap_future(begun)

    def count_busy(self) -> int:
        """Return how many threads are in use."""
        return self.size - self._free

    def count_waiting(self) -> int:
        """Return how much work waits for its turn."""
        return sum(map(len, self._waiting.values()))

    def has_share(self, source: str) -> bool:
        """Return whether the source holds as many threads as it may."""
        return self._held[source] >= self._share

    def end_waiting(self) -> None:
        """Raise Unavailable for all who wait for their turn."""
        turns = [turn for waiting in self._waiting.values() for turn in waiting if not turn.done()]
        self._waiting.clear()
        for turn in turns:
            turn.set_exception(Unavailable("The relay is restarting; retry in a few seconds."))

    def close(self) -> None:
        """Start no more work, and do not wait for running work."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._relay_pool.shutdown(wait=False, cancel_futures=True)

    async def _acquire(self, source: str, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for the source's turn, and reserve a thread."""
        if self._free and not self.has_share(source):
            self._reserve(source)
            return
        waiting = self._waiting.setdefault(source, deque())
        if len(waiting) >= self._max_waiting:
            raise too_many()
        turn = loop.create_future()
        waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                if turn.exception() is None:
                    self._release(source)
            elif turn in waiting:
                waiting.remove(turn)
                self._forget_if_idle(source)
            raise

    def _reserve(self, source: str) -> None:
        self._free -= 1
        self._held[source] += 1

    def _release(self, source: str) -> None:
        self._free += 1
        self._held[source] -= 1
        if not self._held[source]:
            del self._held[source]
        while self._free and (following := self._next_source()) is not None:
            waiting = self._waiting.pop(following)
            turn = waiting.popleft()
            if waiting:
                self._waiting[following] = waiting  # Back to the end of the queue.
            if not turn.done():
                self._reserve(following)
                turn.set_result(None)

    def _next_source(self) -> str | None:
        return next((source for source in self._waiting if not self.has_share(source)), None)

    def _forget_if_idle(self, source: str) -> None:
        if not self._waiting.get(source):
            self._waiting.pop(source, None)


def too_many() -> TooManyRequests:
    """The error for a source that exceeds its share."""
    return TooManyRequests(
        "This sender has too many reads in progress: they use up its share.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
        hint="Send fewer requests at a time, and narrow them: one session, a shorter period, a smaller limit.",
    )
