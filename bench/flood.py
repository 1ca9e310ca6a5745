"""Posts a small webhook at a given rate over keep-alive connections, and reports the responses.

Runs as a separate process, so that it does not slow down the measuring one; it reports its own CPU time.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter, deque
from typing import cast

import msgspec
import uvloop

CONNECTIONS = 64
TICK_SECONDS = 0.005

BODY = b'{"command":"store_memory","session_id":"flood","data":{"key":"k","content":"x"}}'


class Flooded(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a flood."""

    seconds: float
    answers: dict[str, int]
    """The number of responses by status."""
    cpu_seconds: float
    """The CPU time of this process."""


class _Line(asyncio.Protocol):
    """A connection with at most one request in flight. It is in `idle` between requests."""

    def __init__(self, request: bytes, answers: Counter[str], idle: deque[_Line]) -> None:
        self._request = request
        self._answers = answers
        self._idle = idle
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._idle.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._answers["connection lost"] += 1

    def send(self) -> None:
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]):
            self._answers[head[9:12].decode()] += 1
            self._received = b""
            self._idle.append(self)


async def flood(port: int, api_key: str, *, per_second: float, seconds: float) -> Flooded:
    """Send at that rate, as far as the server keeps up: without an idle connection, a request is skipped."""
    head = f"POST /v1/webhook HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {api_key}\r\nContent-Length: {len(BODY)}\r\n"
    request = head.encode() + b"Content-Type: application/json\r\n\r\n" + BODY
    answers: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    idle: deque[_Line] = deque()
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: _Line(request, answers, idle), "127.0.0.1", port)
    began_at, cpu_before, due = time.perf_counter(), time.process_time(), 0.0
    last_at = began_at
    while (now := time.perf_counter()) - began_at < seconds:
        due = min(due + (now - last_at) * per_second, float(CONNECTIONS))
        last_at = now
        while idle and due >= 1:
            idle.popleft().send()
            due -= 1
        await asyncio.sleep(TICK_SECONDS)
    return Flooded(
        seconds=time.perf_counter() - began_at, answers=dict(answers), cpu_seconds=time.process_time() - cpu_before
    )


if __name__ == "__main__":
    _, port, api_key, per_second, seconds = sys.argv
    flooded = uvloop.run(flood(int(port), api_key, per_second=float(per_second), seconds=float(seconds)))
    print(msgspec.json.encode(flooded).decode())
