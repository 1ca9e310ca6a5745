"""Load shedding. Samples Redis each second (does it answer, is it durable, how much memory is left, how long is each
source's backlog) and counts what this process stores between two samples.

It does not see what the other processes of its relay store meanwhile. So each may store its part of what was left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter

from redis.asyncio import Redis

from models.errors import TooManyRequests, Unavailable
from models.queue.inbox import BACKLOG_BYTES_KEY, BACKLOG_KEY, ENTRY_BYTES, PERMITTED_MEMORY, SHARDS, Entry, inbox_key
from relay.limits.persistence_check import NEEDED, check_persistence
from relay.redis_client import REDIS_ERRORS, Diagnosis, diagnose

SAMPLE_SECONDS = 1.0
AWAY_SAMPLE_SECONDS = 0.02
"""While Redis does not answer, so that it is used again as soon as it is back."""
EARLY_SAMPLE_SECONDS = 0.1
"""Least time between two samples. A process takes the next one early when it has stored half of its part."""
PROBE_KEY = "sr:probe"
"""Written with each sample, as a Redis that cannot write must not accept webhooks. Its value means nothing."""
PROBE_SECONDS = 60
SAMPLE_TIMEOUT_SECONDS = 2.0
"""A server that takes longer for nineteen small commands cannot accept webhooks either."""
ENTRY_GROWTH = 1.05
"""Redis memory per byte of an entry's data."""
SOURCES_AT_ONCE = 2
"""One source may fill half of the backlog, or of the memory. Others find room while workers cannot keep up with it or
Postgres is away; usually only one source is busy."""
RETRY_AFTER_SECONDS = 5
LITTLE_MEMORY = "The inbox has little memory left; nothing was stored."

logger = logging.getLogger(__name__)


class _Count:
    """Counts entries of this process and their size in Redis, by source."""

    def __init__(self) -> None:
        self.entries: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()
        self.total = 0
        self.size = 0

    def add(self, source: str, size: int) -> None:
        self.entries[source] += 1
        self.sizes[source] += size
        self.total += 1
        self.size += size

    def include(self, other: _Count) -> None:
        self.entries += other.entries
        self.sizes += other.sizes
        self.total += other.total
        self.size += other.size

    def leave_out(self, other: _Count) -> None:
        self.entries -= other.entries
        self.sizes -= other.sizes
        self.total -= other.total
        self.size -= other.size


class LoadShedder:
    """Decides whether new webhooks are accepted, by the last sample and what was stored since."""

    def __init__(self, redis: Redis, *, max_backlog: int, require_durable: bool, processes: int = 1) -> None:
        self._redis = redis
        self._processes = processes
        self._max_backlog = max_backlog
        self._share = max(1, max_backlog // SOURCES_AT_ONCE)
        self._require_durable = require_durable
        self._weakness: str | None = None
        self._refusal: str | None = None
        self._trouble: Diagnosis | None = None
        self._room: float | None = None
        """Bytes by which Redis may still grow; None without a limit."""
        self._share_bytes: float | None = None
        """Bytes that one source's entries may take; None without a limit."""
        self._backlog: dict[str, int] = {}
        self._backlog_bytes: dict[str, int] = {}
        self._length = 0
        self._unseen = _Count()
        """Entries that the last sample may not have seen, as they were stored during it or later."""
        self._stored = _Count()
        """Those of them that the next sample will see."""
        self._early = asyncio.Event()
        """Set to take the next sample early."""

    def check(self) -> None:
        """Raise Unavailable if no webhooks are accepted now."""
        if self._refusal is not None:
            raise Unavailable(self._refusal)

    def reserve(self, entry: Entry) -> int:
        """Count an entry that is about to be stored; returns its size, for `release`. Raises Unavailable if it does not
        fit, or TooManyRequests if its source has used its share of the backlog."""
        self.check()
        source, size = entry.source, size_in_redis(entry)
        if not self._fits(self._max_backlog - self._length, self._unseen.total, 1):
            raise Unavailable(self._too_long())
        if not self._fits(self._share - self._backlog.get(source, 0), self._unseen.entries.get(source, 0), 1):
            raise _share_taken(f"This sender has {self._share:,} commands waiting to be applied")
        if self._share_bytes is not None:
            held, unseen = self._backlog_bytes.get(source, 0), self._unseen.sizes[source]
            if not self._fits(self._share_bytes - held, unseen, size):
                raise _share_taken(f"This sender's waiting commands take {(held + unseen) / 1e6:,.1f} MB")
        if self._room is not None and not self._fits(self._room, self._unseen.size, size):
            raise Unavailable(LITTLE_MEMORY)
        self._unseen.add(source, size)
        return size

    def release(self, source: str, size: int) -> None:
        """Mark an entry as stored, or not stored: the next sample sees it if it is."""
        self._stored.add(source, size)

    @property
    def is_answered(self) -> bool:
        """Whether Redis answered the last sample."""
        return self._trouble is None

    def _fits(self, left: float, used: int, more: int) -> bool:
        """Whether this process may store `more`, if it has stored `used` of what the last sample has `left`."""
        if used + more > left:
            return False
        if self._processes > 1 and 2 * self._processes * (used + more) > left:
            self._early.set()
        return used == 0 or self._processes * (used + more) <= left

    async def run(self) -> None:
        """Sample once a second, until cancelled; more often while Redis is away, or the processes of a relay store much
        of what is left."""
        while True:
            self._early.clear()
            await self.sample()
            if not self.is_answered:
                await asyncio.sleep(AWAY_SAMPLE_SECONDS)
                continue
            await asyncio.sleep(EARLY_SAMPLE_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SAMPLE_SECONDS - EARLY_SAMPLE_SECONDS):
                    await self._early.wait()

    async def sample(self) -> None:
        """Take one sample."""
        shown, self._stored = self._stored, _Count()
        try:
            async with asyncio.timeout(SAMPLE_TIMEOUT_SECONDS):
                refusal = await self._find_refusal()
            self._unseen.leave_out(shown)
            trouble = None
        except (*REDIS_ERRORS, TimeoutError) as error:
            trouble = diagnose(error)
            refusal = f"{trouble.message}; nothing was stored."
            self._stored.include(shown)
        self._report(refusal, trouble)
        self._refusal, self._trouble = refusal, trouble

    def _report(self, refusal: str | None, trouble: Diagnosis | None) -> None:
        """Log when refusing begins, changes its reason, or ends."""
        if trouble is not None and (self._trouble is None or trouble.message != self._trouble.message):
            logger.error("Refusing webhooks: %s. %s (%s)", trouble.message, trouble.advice, trouble.cause)
        elif trouble is None and refusal is not None and (self._refusal is None or self._trouble is not None):
            logger.warning("Refusing webhooks: %s", refusal)
        elif refusal is None and self._refusal is not None:
            logger.warning("Accepting webhooks again.")

    async def _find_refusal(self) -> str | None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.set(PROBE_KEY, b"", ex=PROBE_SECONDS)
            pipeline.info("memory")
            pipeline.config_get(*NEEDED)
            pipeline.hgetall(BACKLOG_KEY)
            pipeline.hgetall(BACKLOG_BYTES_KEY)
            for shard in range(SHARDS):
                pipeline.xlen(inbox_key(shard))
            probe, memory, settings, backlog, sizes, *lengths = await pipeline.execute(raise_on_error=False)
        needed = (probe, memory, backlog, sizes, *lengths)
        if trouble := next((answer for answer in needed if isinstance(answer, Exception)), None):
            raise trouble
        self._backlog, self._backlog_bytes = _numbers(backlog), _numbers(sizes)
        self._length = sum(lengths)
        limit, used = memory.get("maxmemory", 0), memory["used_memory"]
        self._room = limit * PERMITTED_MEMORY - used if limit else None
        self._share_bytes = limit * PERMITTED_MEMORY / SOURCES_AT_ONCE if limit else None
        self._log_change(check_persistence(settings))
        if self._weakness is not None and self._require_durable:
            return "The inbox is not durable; nothing was stored."
        if self._room is not None and self._room < 0:
            return LITTLE_MEMORY
        if self._length > self._max_backlog:
            return self._too_long()
        return None

    def _too_long(self) -> str:
        return f"More than {self._max_backlog:,} commands are waiting to be applied; nothing was stored."

    def _log_change(self, weakness: str | None) -> None:
        if weakness != self._weakness:
            logger.warning("%s.", weakness or "Redis is durable now")
            self._weakness = weakness


def _numbers(answer: dict[bytes, bytes]) -> dict[str, int]:
    return {source.decode(): int(number) for source, number in answer.items()}


def _share_taken(reason: str) -> TooManyRequests:
    return TooManyRequests(
        f"{reason}, which is its share; nothing was stored.",
        code="backlog_share",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def size_in_redis(entry: Entry) -> int:
    """Returns roughly the bytes by which storing the entry makes Redis grow."""
    return int(len(memoryview(entry.data)) * ENTRY_GROWTH) + ENTRY_BYTES
