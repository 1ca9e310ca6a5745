"""Tells callers that wait when their key is revoked: one look at all of them, as one for each would cost more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from relay.auth.authentication import Caller

LOOK_SECONDS = 0.5
"""Within 5 s in all a revoked key is refused; most of that is left for this process to hear of it."""

Call = Callable[[], object]


class RevocationWatch:
    """Those in this process who wait in the name of a key."""

    def __init__(self, is_revoked: Callable[[Caller], bool]) -> None:
        self._is_revoked = is_revoked
        self._watched: dict[object, tuple[Caller, Call]] = {}

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.check()

    def check(self) -> None:
        """Call for each key that was revoked, once."""
        for mark, (caller, call) in list(self._watched.items()):
            if mark in self._watched and self._is_revoked(caller):
                del self._watched[mark]
                call()

    @contextmanager
    def watch(self, caller: Caller, call: Call) -> Iterator[None]:
        """Let `call` be called once the caller's key is revoked, within the block."""
        mark = object()
        self._watched[mark] = (caller, call)
        try:
            yield
        finally:
            self._watched.pop(mark, None)
