"""Sends webhooks over keep-alive connections, at a rate or as fast as they are answered, and reports the latencies.

Takes the place of wrk where that is not installed, and uses much more CPU time. Runs as a separate process: `python -m
bench.speed.load_process JSON`, with the fields of Order. At a rate, a latency counts from the time at which the request
was due.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections import deque
from typing import cast

import msgspec
import uvloop

from bench.speed.webhook import SESSIONS, body_of, headers

LEAST_SLEEP_SECONDS = 0.0005
"""Requests that are due within that time are sent together."""
TIMER_SECONDS = 0.002
"""The event loop's timers are up to a millisecond late, so the last part of a wait blocks the loop instead."""
LAST_ANSWERS_SECONDS = 35.0
"""Longer than a synchronous answer takes at most."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The load to produce."""

    port: int
    path: str
    prefix: str
    seconds: float
    connections: int
    per_second: float = 0.0
    """The rate; 0: as fast as requests are answered."""
    sessions: int = SESSIONS


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a load."""

    requests: int
    seconds: float
    refused: int
    """Responses with an error status."""
    broken: int
    """Connections that failed, and requests that were not answered in time."""
    p50_ms: float
    p99_ms: float
    sent_at: list[float] = []
    """With a rate: when each request was sent, or was due, in seconds since 1970, by its number."""


class _Generator:
    """Sends the requests and collects the answers."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.idle: deque[_Connection] = deque()
        self.open = 0
        self.seconds_of: list[float] = []
        self.sent_at: list[float] = []
        self.refused = 0
        self.broken = 0
        self.in_flight = 0
        self.is_over = False
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers().items())
        self._head = f"POST {order.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}Content-Length: ".encode()
        self._next = 0

    def request(self) -> bytes:
        """Build the next request."""
        body = body_of(self.order.prefix, self._next, sessions=self.order.sessions)
        self._next += 1
        return self._head + b"%d\r\n\r\n" % len(body) + body

    def answered(self, connection: _Connection, *, status: bytes, due_at: float) -> None:
        """Record an answer, and use the connection again."""
        self.in_flight -= 1
        self.seconds_of.append(time.perf_counter() - due_at)
        if status[:1] != b"2":
            self.refused += 1
        if self.order.per_second or self.is_over:
            self.idle.append(connection)
        else:
            connection.send(time.perf_counter())

    async def run(self) -> Load:
        """Connect, send for the given time, and wait for the last answers."""
        loop, order = asyncio.get_running_loop(), self.order
        for _ in range(order.connections):
            await loop.create_connection(lambda: _Connection(self), "127.0.0.1", order.port)
        began_at, offset = time.perf_counter(), time.time() - time.perf_counter()
        if order.per_second:
            await self._send_at_rate(began_at, offset)
        else:
            while self.idle:
                self.idle.popleft().send(time.perf_counter())
            await asyncio.sleep(order.seconds)
        elapsed, answered = time.perf_counter() - began_at, len(self.seconds_of)
        self.is_over = True
        limit_at = time.perf_counter() + LAST_ANSWERS_SECONDS
        while self.in_flight and time.perf_counter() < limit_at:  # noqa: ASYNC110 - a rare wait, at the end
            await asyncio.sleep(0.01)
        cuts = statistics.quantiles(self.seconds_of, n=100) if len(self.seconds_of) > 1 else [0.0] * 99
        return Load(
            requests=len(self.seconds_of) if order.per_second else answered,
            seconds=elapsed,
            refused=self.refused,
            broken=self.broken + self.in_flight,
            p50_ms=cuts[49] * 1_000,
            p99_ms=cuts[98] * 1_000,
            sent_at=self.sent_at,
        )

    async def _send_at_rate(self, began_at: float, offset: float) -> None:
        count = int(self.order.seconds * self.order.per_second)
        while self._next < count and (self.open or not self.broken):
            due_at = began_at + self._next / self.order.per_second
            while self.idle and self._next < count and due_at <= time.perf_counter():
                self.sent_at.append(due_at + offset)
                self.idle.popleft().send(due_at)
                due_at = began_at + self._next / self.order.per_second
            seconds = due_at - time.perf_counter()
            if seconds < TIMER_SECONDS:
                time.sleep(max(seconds, LEAST_SLEEP_SECONDS))  # noqa: ASYNC251
            await asyncio.sleep(max(0.0, seconds - TIMER_SECONDS))


class _Connection(asyncio.Protocol):
    """A connection with at most one request in flight. It is in `idle` between requests."""

    def __init__(self, generator: _Generator) -> None:
        self._generator = generator
        self._received = b""
        self._due_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._generator.open += 1
        self._generator.idle.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._generator.open -= 1
        if self in self._generator.idle:
            self._generator.idle.remove(self)
        if not self._generator.is_over:
            self._generator.broken += 1

    def send(self, due_at: float) -> None:
        self._due_at = due_at
        self._generator.in_flight += 1
        self._transport.write(self._generator.request())

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]):
            self._received = b""
            self._generator.answered(self, status=head[9:12], due_at=self._due_at)


if __name__ == "__main__":
    load = uvloop.run(_Generator(msgspec.json.decode(sys.argv[1], type=Order)).run())
    sys.stdout.write(msgspec.json.encode(load).decode())
