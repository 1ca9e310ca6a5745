"""The throughput of the last hour, for people: about one sample a minute of the counts that /metrics shows.

A sample is a line in a short list in Redis, written by whichever relay process is first. It costs nothing per webhook.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from models.errors import Unavailable
from models.queue.metrics import ACCEPTED, COUNTS_KEY, DECIDED
from relay.redis_client import REDIS_ERRORS

SAMPLES_KEY = "sr:metrics:samples"
"""A list of the time in seconds and the counts, with spaces between them, the newest first."""
SAMPLE_SECONDS = 60
SAMPLES = 61
POLL_SECONDS = 5.0
"""How often each process looks whether the next sample is due."""
FIELDS = (
    ACCEPTED.field(),
    *(DECIDED.field(status) for status in ("applied", "rejected", "parked", "conflict", "failed")),
)

SAMPLE_SCRIPT = f"""#!lua flags=allow-oom
local now = tonumber(redis.call('TIME')[1])
local line = tostring(now)
for _, count in ipairs(redis.call('HMGET', KEYS[1], unpack(ARGV))) do line = line .. ' ' .. (count or 0) end
local last = redis.call('LINDEX', KEYS[2], 0)
local age = last and now - tonumber(string.match(last, '^%d+'))
if not age or age < 0 or age >= {SAMPLE_SECONDS} then
  redis.call('LPUSH', KEYS[2], line)
  redis.call('LTRIM', KEYS[2], 0, {SAMPLES - 1})
end
return line
"""
"""Adds a sample if the last one is older than a minute, and returns the current counts. KEYS: COUNTS_KEY, SAMPLES_KEY;
ARGV: FIELDS."""


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """What happened between two samples."""

    begun_at: datetime
    seconds: int
    accepted: int
    applied: int
    rejected: int
    """By the rules, by the state of the session, or since their id was in use."""
    failed: int

    def per_minute(self, count: int) -> float:
        """Return a count as a rate."""
        return count * 60 / self.seconds


class Throughput:
    """Takes the samples, and reads them."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            with contextlib.suppress(*REDIS_ERRORS):
                await self._sample()
            await asyncio.sleep(POLL_SECONDS)

    async def read(self, *, hour_seconds: int = 3_600) -> list[Period]:
        """Return the periods of the last hour up to now, the earliest first; a new relay has only a short one. Raises
        Unavailable."""
        try:
            now = await self._sample()
            lines = cast(list[bytes], await self._redis.lrange(SAMPLES_KEY, 0, -1))
        except REDIS_ERRORS as error:
            raise Unavailable("The counts cannot be read at the moment.") from error
        samples = [_parse(line) for line in reversed([now, *lines])]
        recent = [sample for sample in samples if sample[0] > samples[-1][0] - hour_seconds]
        return [_difference(before, after) for before, after in pairwise(recent) if after[0] > before[0]]

    async def _sample(self) -> bytes:
        answer: Any = self._redis.eval(SAMPLE_SCRIPT, 2, COUNTS_KEY, SAMPLES_KEY, *FIELDS)
        return cast(bytes, await answer)


def _parse(line: bytes) -> list[int]:
    return [int(number) for number in line.split()]


def _difference(before: Sequence[int], after: Sequence[int]) -> Period:
    """Return what was counted between two samples; nothing if Redis was emptied meanwhile."""
    accepted, applied, rejected, parked, conflict, failed = (
        max(new - old, 0) for old, new in zip(before[1:], after[1:], strict=True)
    )
    return Period(
        begun_at=datetime.fromtimestamp(before[0], UTC),
        seconds=after[0] - before[0],
        accepted=accepted,
        applied=applied,
        rejected=rejected + parked + conflict,
        failed=failed,
    )
