"""Places for those who wait: each costs memory and a connection, so there are only so many, and a share for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from models.errors import TooManyRequests, Unavailable

SOURCES_AT_ONCE = 4
"""How many sources it takes to hold all places: one alone gets a quarter, so that others find some, and few senders
that wait a lot still have many."""
RETRY_AFTER_SECONDS = 5


class ConcurrencyLimiter:
    """The places of one kind in this process."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._share = max(1, total // SOURCES_AT_ONCE)
        self._taken: Counter[str] = Counter()

    def require_free_slot(self, source: str) -> None:
        """Raise TooManyRequests if the source has its share, or Unavailable if all are taken."""
        if self._taken[source] >= self._share:
            raise TooManyRequests(
                f"This sender waits {self._share} times already; ask without waiting.",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        if self._taken.total() >= self._total:
            raise Unavailable("Too many wait at the moment; ask without waiting.")

    @contextmanager
    def acquire(self, source: str) -> Iterator[None]:
        """Hold a place within the block. Raises what require_one does."""
        self.require_free_slot(source)
        self._taken[source] += 1
        try:
            yield
        finally:
            self._taken[source] -= 1
            if not self._taken[source]:
                del self._taken[source]
