"""A registry of this process' waiters, by the key that they wait for."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Waiter = TypeVar("Waiter", bound=Hashable)


class Waiters(Generic[Key, Waiter]):
    """Waiters by key. A key without waiters leaves no trace."""

    def __init__(self) -> None:
        self._by_key: dict[Key, dict[Waiter, None]] = {}

    def __contains__(self, key: Key) -> bool:
        """Whether the key has waiters."""
        return key in self._by_key

    def keys(self) -> list[Key]:
        """Returns all keys with waiters."""
        return list(self._by_key)

    def get(self, key: Key) -> Collection[Waiter]:
        """Returns the waiters of a key, the longest waiting first."""
        return tuple(self._by_key.get(key, ()))

    @contextmanager
    def add(self, key: Key, waiter: Waiter) -> Iterator[Waiter]:
        """Register a waiter for the key within the block."""
        self._by_key.setdefault(key, {})[waiter] = None
        try:
            yield waiter
        finally:
            waiters = self._by_key[key]
            del waiters[waiter]
            if not waiters:
                del self._by_key[key]
