"""Shedding load: each second a look whether Redis answers, is durable, has memory left, and how much waits in it, and
whose it is. What this process stores between two looks is counted here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from redis.asyncio import Redis

from models.errors import TooManyRequests, Unavailable
from models.inbox import BACKLOG_KEY, SHARDS, Entry, inbox_key
from relay.connections import RedisTrouble
from relay.durability import NEEDED, find_weakness

SAMPLE_SECONDS = 1.0
SAMPLE_TIMEOUT_SECONDS = 2.0
"""A server that takes longer for eighteen small commands cannot take webhooks either."""
MAX_MEMORY_SHARE = 0.7
"""The rest is for workers, which need memory to start and to drain."""
ENTRY_GROWTH = 1.05
ENTRY_BYTES = 1_000
"""What an entry takes in Redis beside its data, the mark of its delivery among it: 550 to 700 bytes were measured, and
up to 3 % more for large ones."""
SOURCES_AT_ONCE = 2
"""How many sources it takes to fill the backlog: one alone gets half of it, so that others find room while workers
cannot keep up with it, or Postgres is away; and most often one alone has something to say."""
RETRY_AFTER_SECONDS = 5
LITTLE_MEMORY = "The inbox has little memory left; nothing was stored."

logger = logging.getLogger(__name__)


class _Count:
    """Entries of this process: how many of each source, and what they take in Redis."""

    def __init__(self) -> None:
        self.entries: dict[str, int] = {}
        self.total = 0
        self.size = 0

    def add(self, source: str, size: int) -> None:
        self.entries[source] = self.entries.get(source, 0) + 1
        self.total += 1
        self.size += size

    def include(self, other: _Count) -> None:
        self.entries = dict(Counter(self.entries) + Counter(other.entries))
        self.total += other.total
        self.size += other.size

    def leave_out(self, other: _Count) -> None:
        self.entries = dict(Counter(self.entries) - Counter(other.entries))
        self.total -= other.total
        self.size -= other.size


class Load:
    """Whether new webhooks can be taken, as of the last sample and what was stored since."""

    def __init__(self, redis: Redis, *, max_backlog: int, require_durable: bool) -> None:
        self._redis = redis
        self._max_backlog = max_backlog
        self._share = max(1, max_backlog // SOURCES_AT_ONCE)
        self._require_durable = require_durable
        self._weakness: str | None = None
        self._refusal: str | None = None
        self._room: float | None = None
        """Bytes that Redis may still grow by, unless it has no limit."""
        self._backlog: dict[str, int] = {}
        self._length = 0
        self._unseen = _Count()
        """What no sample has shown for certain, as it was being stored or not yet begun when the last one was taken."""
        self._stored = _Count()
        """The part of it that the next sample will show."""

    def check(self) -> None:
        """Raise Unavailable if no webhooks can be taken now."""
        if self._refusal is not None:
            raise Unavailable(self._refusal)

    @contextmanager
    def taking(self, entry: Entry) -> Iterator[None]:
        """Count an entry that is stored within the block. Raises Unavailable if there is no room for it, or
        TooManyRequests if its source has its share of the backlog."""
        self.check()
        source, size = entry.source, size_in_redis(entry)
        if self._room is not None and self._unseen.size + size > self._room:
            raise Unavailable(LITTLE_MEMORY)
        if self._length + self._unseen.total >= self._max_backlog:
            raise Unavailable(self._too_long())
        if self._backlog.get(source, 0) + self._unseen.entries.get(source, 0) >= self._share:
            raise TooManyRequests(
                f"{self._share:,} commands of this sender wait to be applied, which is its share; nothing was stored.",
                code="backlog_share",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        self._unseen.add(source, size)
        try:
            yield
        finally:
            self._stored.add(source, size)

    async def run(self) -> None:
        """Sample once a second, until cancelled."""
        while True:
            await self.sample()
            await asyncio.sleep(SAMPLE_SECONDS)

    async def sample(self) -> None:
        """Look once."""
        shown, self._stored = self._stored, _Count()
        try:
            async with asyncio.timeout(SAMPLE_TIMEOUT_SECONDS):
                refusal = await self._find_refusal()
            self._unseen.leave_out(shown)
        except (*RedisTrouble, TimeoutError):
            refusal = "The inbox does not answer at the moment; nothing was stored."
            self._stored.include(shown)
        if (refusal is None) != (self._refusal is None):
            logger.warning(
                "Taking webhooks again." if refusal is None else "Refusing webhooks: %s", *filter(None, [refusal])
            )
        self._refusal = refusal

    async def _find_refusal(self) -> str | None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.info("memory")
            pipeline.config_get(*NEEDED)
            pipeline.hgetall(BACKLOG_KEY)
            for shard in range(SHARDS):
                pipeline.xlen(inbox_key(shard))
            memory, settings, backlog, *lengths = await pipeline.execute(raise_on_error=False)
        if trouble := next((answer for answer in (memory, backlog, *lengths) if isinstance(answer, Exception)), None):
            raise trouble
        self._backlog = {source.decode(): int(count) for source, count in backlog.items()}
        self._length = sum(lengths)
        limit, used = memory.get("maxmemory", 0), memory["used_memory"]
        self._room = limit * MAX_MEMORY_SHARE - used if limit else None
        self._note(find_weakness(settings))
        if self._weakness is not None and self._require_durable:
            return "The inbox may not keep what it takes; nothing was stored."
        if self._room is not None and self._room < 0:
            return LITTLE_MEMORY
        if self._length > self._max_backlog:
            return self._too_long()
        return None

    def _too_long(self) -> str:
        return f"More than {self._max_backlog:,} commands wait to be applied; nothing was stored."

    def _note(self, weakness: str | None) -> None:
        if weakness != self._weakness:
            logger.warning("%s.", weakness or "Redis is durable now")
            self._weakness = weakness


def size_in_redis(entry: Entry) -> int:
    """About what Redis grows by when the entry is stored."""
    return int(len(memoryview(entry.data)) * ENTRY_GROWTH) + ENTRY_BYTES
