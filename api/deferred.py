"""Makes an object when it is first needed, because making it, or importing its module, takes long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from models.process.gc_tuning import collect_nothing, collect_seldom

T = TypeVar("T")


class Deferred(Generic[T]):
    """An object that `make` makes in a thread, so that other requests go on meanwhile."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._making: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """Return the object. It is made once, even if many ask at the same time; if that fails, for all of them, the
        next call tries again."""
        if self._making is None or (self._making.done() and self._making.exception()):
            self._making = asyncio.create_task(asyncio.to_thread(self._import))
        return await asyncio.shield(self._making)

    def _import(self) -> T:
        collect_nothing()  # The collector would take a sixth of the time.
        try:
            return self._make()
        finally:
            collect_seldom()  # What was imported stays.
