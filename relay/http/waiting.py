"""Suspends a request until something happens, without holding a thread or a server connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.types import Receive


async def wait_any(*signals: asyncio.Event | asyncio.Future[Any], seconds: float) -> None:
    """Waits until a signal is set or done, or for `seconds`, which may be zero or less."""
    if seconds <= 0:
        return
    waits = {signal: asyncio.ensure_future(signal.wait()) for signal in signals if isinstance(signal, asyncio.Event)}
    futures = [signal for signal in signals if not isinstance(signal, asyncio.Event)]
    try:
        await asyncio.wait([*waits.values(), *futures], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits.values():
            wait.cancel()


@contextmanager
def client_disconnect(receive: Receive) -> Iterator[asyncio.Future[None]]:
    """Gives a future that is done when the client has disconnected. The body must have been read."""
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        yield gone
    finally:
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
