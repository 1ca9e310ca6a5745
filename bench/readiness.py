"""Waits for a stack to be ready before a measurement."""

from __future__ import annotations

import asyncio
import time

import httpx

START_SECONDS = 60


async def wait_until_ready(client: httpx.AsyncClient) -> None:
    """Wait until the stack responds. Raises RuntimeError on timeout."""
    limit_at = time.monotonic() + START_SECONDS
    while time.monotonic() < limit_at:
        try:
            if (await client.get("/readyz")).json().get("postgres") == "ok":
                return
        except httpx.HTTPError:
            pass
        await asyncio.sleep(0.1)
    raise RuntimeError("The stack did not start.")
