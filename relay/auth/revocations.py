"""Notifies waiting callers when their key is revoked: one check of all, as one per caller would cost more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from relay.auth.authentication import Caller

LOOK_SECONDS = 0.5
"""A revoked key is rejected within 5 s; most of that is for this process to learn of it."""

Call = Callable[[], object]


class RevocationWatch:
    """Watches the keys of this process' waiting callers."""

    def __init__(self, is_revoked: Callable[[Caller], bool]) -> None:
        self._is_revoked = is_revoked
        self._watched: dict[object, tuple[Caller, Call]] = {}

    async def run(self) -> None:
        """Check repeatedly, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.check()

    def check(self) -> None:
        """Make the call of each caller whose key was revoked, once."""
        for mark, (caller, call) in list(self._watched.items()):
            if mark in self._watched and self._is_revoked(caller):
                del self._watched[mark]
                call()

    @contextmanager
    def watch(self, caller: Caller, call: Call) -> Iterator[None]:
        """Within the block, call `call` once when the caller's key is revoked."""
        mark = object()
        self._watched[mark] = (caller, call)
        try:
            yield
        finally:
            self._watched.pop(mark, None)
