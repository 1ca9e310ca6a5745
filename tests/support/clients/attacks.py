"""Attacks of a hostile sender on a relay, each at the full rate that its limits allow, for a given time.

`python -m tests.support.clients.attacks NAME URL KEY SESSION SECONDS` runs as a separate process, so that it does not
slow down the measuring test. Prints the number of responses by status.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import httpx

PER_SECOND = 12.0
"""The rate of requests: slightly more than the default limit of a key, 600 a minute."""
QUADRATIC_BODY = b"1" * 101 + b'\\"' * 20_000
MANY_PARAMETERS = "&".join(f"p{number}=" for number in range(8_000))
SLOW_WORDS = "solar roof battery heat pump garden rain barrel"

Attack = Callable[["Attacker"], Awaitable[None]]


class Attacker:
    """A sender with one key that attacks one session."""

    def __init__(self, url: str, key: str, session_id: str, *, seconds: float) -> None:
        self.client = httpx.AsyncClient(
            base_url=url,
            headers={"X-API-Key": key},
            timeout=60,
            limits=httpx.Limits(max_connections=500, max_keepalive_connections=500),
        )
        self.session_id = session_id
        self.address = urlsplit(url)
        self.ends_at = time.monotonic() + seconds
        self.statuses: Counter[str] = Counter()

    @property
    def is_over(self) -> bool:
        """Return whether its time is over."""
        return time.monotonic() >= self.ends_at

    async def request(self, method: str, path: str, **how: Any) -> None:
        """Send a request and count its result."""
        try:
            async with self.client.stream(method, path, **how) as answer:
                async for _ in answer.aiter_raw():
                    pass
            self.statuses[str(answer.status_code)] += 1
        except httpx.HTTPError as error:
            self.statuses[type(error).__name__] += 1

    async def at_full_rate(self, send: Callable[[int], Awaitable[None]], *, at_once: int = 250) -> None:
        """Begin PER_SECOND requests each second, whether or not earlier ones have a response."""
        under_way: set[asyncio.Task[None]] = set()
        for number in itertools.count():
            if self.is_over:
                break
            if len(under_way) < at_once:
                task = asyncio.ensure_future(send(number))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            await asyncio.sleep(1 / PER_SECOND)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def costly_to_read(attacker: Attacker) -> None:
    """Send requests that once took seconds to parse, some of them without a key."""

    async def send(number: int) -> None:
        if number % 2:
            await attacker.request("GET", f"/docs/start.js?{MANY_PARAMETERS}", headers={"X-API-Key": ""})
        else:
            headers = {"Content-Type": "application/json"}
            await attacker.request("POST", "/v1/webhook", content=QUADRATIC_BODY, headers=headers)

    await attacker.at_full_rate(send)


async def huge_answers(attacker: Attacker) -> None:
    """Send batches of 500 reads of large memories, and request the longest lists."""
    reads = [{"command": "retrieve_memory", "data": {"key": f"large-{n % 20}"}} for n in range(500)]
    body = {"command": "batch", "session_id": attacker.session_id, "data": {"mode": "partial", "commands": reads}}

    async def send(number: int) -> None:
        if number % 4 == 3:
            await attacker.request("GET", "/v1/deliveries?limit=500")
        else:
            await attacker.request("POST", "/v1/webhook?wait=20", json=body)

    await attacker.at_full_rate(send)


async def filling(attacker: Attacker) -> None:
    """Request outcomes without fetching them, and send the largest possible bodies."""
    read = {"command": "list_memories", "session_id": attacker.session_id, "data": {"max_characters": 90_000}}
    large = {"command": "store_memory", "session_id": attacker.session_id, "data": {"content": "x" * 900_000}}

    async def send(number: int) -> None:
        await attacker.request(
            "POST", f"/v1/webhook{'?wait=1' if number % 2 else ''}", json=large if number % 5 == 0 else read
        )

    await attacker.at_full_rate(send)


async def slow_reads(attacker: Attacker) -> None:
    """Send slow searches by GET, as commands and in batches, misspelt ids, and streams with small pages."""
    search = {"command": "search", "data": {"q": SLOW_WORDS, "limit": 100}}
    batch = {
        "command": "batch",
        "session_id": attacker.session_id,
        "data": {"mode": "partial", "commands": [search] * 100},
    }

    async def send(number: int) -> None:
        kind = number % 4
        if kind == 0:
            await attacker.request("GET", "/v1/search", params={"q": SLOW_WORDS, "limit": "100"})
        elif kind == 1:
            await attacker.request("POST", "/v1/webhook", json=batch)
        elif kind == 2:
            path = f"/v1/sessions/{attacker.session_id}/memories/{'large-' * 21}{number}"
            await attacker.request("GET", path)
        else:
            path = f"/v1/sessions/{attacker.session_id}/events?limit=1"
            await attacker.request("GET", path, headers={"Accept": "text/event-stream"})

    await attacker.at_full_rate(send)


async def unfinished_bodies(attacker: Attacker) -> None:
    """Repeatedly open 140 connections without a key, each with half of a signed body."""
    half = (
        (
            b"POST /v1/webhook HTTP/1.1\r\nHost: relay\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n"
            b"webhook-id: msg_1\r\nwebhook-timestamp: %d\r\nwebhook-signature: v1,AAAA\r\n\r\n" % time.time()
        )
        + b'{"command": "'
        + b"x" * 500_000
    )

    async def hold() -> None:
        while not attacker.is_over:
            try:
                reader, writer = await asyncio.open_connection(attacker.address.hostname, attacker.address.port)
                writer.write(half)
                async with asyncio.timeout(max(0.1, attacker.ends_at - time.monotonic())):
                    line = await reader.readline()
                attacker.statuses[line.decode().split(" ")[1] if line else "closed"] += 1
                writer.close()
            except (OSError, TimeoutError):
                attacker.statuses["lost"] += 1
            await asyncio.sleep(0.2)

    await asyncio.gather(*(hold() for _ in range(140)))


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack for attack in (costly_to_read, huge_answers, filling, slow_reads, unfinished_bodies)
}


async def main(name: str, url: str, key: str, session_id: str, seconds: str) -> None:
    """Run the attack for so many seconds."""
    attacker = Attacker(url, key, session_id, seconds=float(seconds))
    async with attacker.client:
        await ATTACKS[name](attacker)
    print(dict(attacker.statuses))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
