"""Runs the parts of a background service."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def run_together(*parts: Coroutine[Any, Any, None]) -> None:
    """Run all parts until cancelled, or until one raises. Passes each cancellation on, where a TaskGroup passes on only
    the first: a part may miss one that arrives together with what it waits for."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
