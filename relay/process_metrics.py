"""This process' metrics: what it has counted, and its present state. Written to Redis once a second.

Showing them is left to the API.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from redis.asyncio import Redis

from models.errors import RelayError
from models.queue.metrics import (
    ACCEPT_SECONDS,
    ACCEPTED,
    COUNTS_KEY,
    PROCESSES_KEY,
    PUSH_ENTRIES,
    REPEATED,
    REPORTED_SECONDS,
    SERVER_ERRORS,
    CountBuffer,
    arguments_of,
)
from relay.redis_client import REDIS_ERRORS

REPORT_EVERY_SECONDS = 1.0

REPORT_SCRIPT = f"""#!lua flags=allow-oom
for i = 3, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
local now = tonumber(redis.call('TIME')[1])
redis.call('HSET', KEYS[2], ARGV[1], now .. ' ' .. ARGV[2])
local reports = redis.call('HGETALL', KEYS[2])
for i = 1, #reports, 2 do
  local at = tonumber(string.match(reports[i + 1], '^%d+'))
  if not at or at < now - {REPORTED_SECONDS} then redis.call('HDEL', KEYS[2], reports[i]) end
end
"""
"""Adds counts, stores the state of a process, and removes those of processes that have gone. KEYS: COUNTS_KEY,
PROCESSES_KEY; ARGV: process, state, and the fields to add to with their numbers."""


class GaugeDefinition(NamedTuple):
    """A part of a process' state, shown as the sum of all processes."""

    name: str
    """Without the prefix."""
    meaning: str
    label: str = ""
    values: tuple[str, ...] = ()


WAITING_SENDERS = GaugeDefinition("waiting_senders", "Requests that wait for the outcome of their command.")
WAITING_CLAIMS = GaugeDefinition("waiting_claims", "Requests of agents that wait for a task.")
CONNECTIONS = GaugeDefinition("connections", "Open connections of clients.")
_POOLS = ("reads", "claims")
THREADS = GaugeDefinition("database_threads", "Threads, each with a connection to Postgres.", "pool", _POOLS)
THREADS_BUSY = GaugeDefinition("database_threads_busy", "Threads that are in use.", "pool", _POOLS)
THREADS_AWAITED = GaugeDefinition("database_threads_awaited", "Requests that wait for a thread.", "pool", _POOLS)
GAUGES = (WAITING_SENDERS, WAITING_CLAIMS, CONNECTIONS, THREADS, THREADS_BUSY, THREADS_AWAITED)


class ProcessMetrics:
    """Collects this process' counts and state."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._name = secrets.token_hex(8)
        self._counts = CountBuffer()
        self._state: dict[str, Callable[[], int]] = {}

    def show(self, gauge: GaugeDefinition, read: Callable[[], int], *, value: str = "") -> None:
        """Report this gauge, for a value of its label if it has one. `read` is called once a second."""
        self._state[f"{gauge.name}:{value}" if value else gauge.name] = read

    def count_stored(self, *, is_repeated: bool, begun_at: float) -> None:
        """Count a webhook that is stored now; `begun_at` is a time of `time.perf_counter`."""
        self._counts.count(REPEATED.name if is_repeated else ACCEPTED.name)
        self._counts.observe(ACCEPT_SECONDS, time.perf_counter() - begun_at)

    def count_push(self, entries: int) -> None:
        """Count a call that has pushed so many entries."""
        self._counts.observe(PUSH_ENTRIES, entries)

    def count_error(self, error: RelayError) -> None:
        """Count the error that answers a request, if it is not the sender's."""
        if error.status >= 500:
            self._counts.count(SERVER_ERRORS.field(str(error.status)))

    async def run(self) -> None:
        """Report once a second, until cancelled."""
        while True:
            await asyncio.sleep(REPORT_EVERY_SECONDS)
            with contextlib.suppress(*REDIS_ERRORS):
                await self.report()

    async def report(self) -> None:
        """Write to Redis. Raises RedisError or OSError; what was counted is then added with the next report, so it may
        be added twice if this one was carried out."""
        state = msgspec.json.encode({name: read() for name, read in self._state.items()})
        counts = self._counts.take()
        try:
            await self._redis.eval(
                REPORT_SCRIPT, 2, COUNTS_KEY, PROCESSES_KEY, self._name, state, *arguments_of(counts)
            )
        except BaseException:
            self._counts.put_back(counts)
            raise

    async def end(self) -> None:
        """Report for the last time, as far as possible."""
        with contextlib.suppress(*REDIS_ERRORS):
            await self.report()
            await self._redis.hdel(PROCESSES_KEY, self._name)


def read_states(reports: dict[bytes, bytes]) -> list[dict[str, float]]:
    """Returns the states in the values of PROCESSES_KEY, one for each process."""
    return [msgspec.json.decode(report.partition(b" ")[2], type=dict[str, float]) for report in reports.values()]
