"""Limits concurrent waiters, overall and per source: each costs memory and a connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from models.errors import TooManyRequests, Unavailable

SOURCES_AT_ONCE = 4
"""A source may hold a quarter of the slots: others still find some, and a few busy senders have many."""
RETRY_AFTER_SECONDS = 5


class ConcurrencyLimiter:
    """Limits the concurrent waiters of one kind in this process."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._share = max(1, total // SOURCES_AT_ONCE)
        self._taken: Counter[str] = Counter()

    def require_free_slot(self, source: str) -> None:
        """Raise TooManyRequests if the source holds its share, or Unavailable if no slot is free."""
        if self._taken[source] >= self._share:
            raise TooManyRequests(
                f"This sender already has {self._share} waiting requests; send this one without waiting.",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        if self._taken.total() >= self._total:
            raise Unavailable("Too many requests are waiting at the moment; send this one without waiting.")

    def count(self) -> int:
        """Returns how many wait."""
        return self._taken.total()

    @contextmanager
    def acquire(self, source: str) -> Iterator[None]:
        """Hold a slot within the block. Raises as `require_free_slot` does."""
        self.require_free_slot(source)
        self._taken[source] += 1
        try:
            yield
        finally:
            self._taken[source] -= 1
            if not self._taken[source]:
                del self._taken[source]
