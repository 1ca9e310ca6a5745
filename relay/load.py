"""Shedding load: each second a look whether Redis answers, is durable, has memory left, and how much waits in it."""

from __future__ import annotations

import asyncio
import logging

from redis.asyncio import Redis

from models.errors import Unavailable
from models.inbox import SHARDS, inbox_key
from relay.connections import RedisTrouble
from relay.durability import NEEDED, find_weakness

SAMPLE_SECONDS = 1.0
SAMPLE_TIMEOUT_SECONDS = 2.0
"""A server that takes longer for seventeen small commands cannot take webhooks either."""
MAX_MEMORY_SHARE = 0.7
"""The rest is for workers, which need memory to start and to drain."""

logger = logging.getLogger(__name__)


class Load:
    """Whether new webhooks can be taken, as of the last sample."""

    def __init__(self, redis: Redis, *, max_backlog: int, require_durable: bool) -> None:
        self._redis = redis
        self._max_backlog = max_backlog
        self._require_durable = require_durable
        self._weakness: str | None = None
        self._refusal: str | None = None

    def check(self) -> None:
        """Raise Unavailable if no webhooks can be taken now."""
        if self._refusal is not None:
            raise Unavailable(self._refusal)

    async def run(self) -> None:
        """Sample once a second, until cancelled."""
        while True:
            await self.sample()
            await asyncio.sleep(SAMPLE_SECONDS)

    async def sample(self) -> None:
        """Look once."""
        try:
            async with asyncio.timeout(SAMPLE_TIMEOUT_SECONDS):
                refusal = await self._find_refusal()
        except (*RedisTrouble, TimeoutError):
            refusal = "The inbox does not answer at the moment; nothing was stored."
        if (refusal is None) != (self._refusal is None):
            logger.warning(
                "Taking webhooks again." if refusal is None else "Refusing webhooks: %s", *filter(None, [refusal])
            )
        self._refusal = refusal

    async def _find_refusal(self) -> str | None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.info("memory")
            pipeline.config_get(*NEEDED)
            for shard in range(SHARDS):
                pipeline.xlen(inbox_key(shard))
            memory, settings, *lengths = await pipeline.execute(raise_on_error=False)
        if trouble := next((answer for answer in (memory, *lengths) if isinstance(answer, Exception)), None):
            raise trouble
        self._note(find_weakness(settings))
        if self._weakness is not None and self._require_durable:
            return "The inbox may not keep what it takes; nothing was stored."
        limit, used = memory.get("maxmemory", 0), memory["used_memory"]
        if limit and used > limit * MAX_MEMORY_SHARE:
            return "The inbox has little memory left; nothing was stored."
        if sum(lengths) > self._max_backlog:
            return f"More than {self._max_backlog:,} commands wait to be applied; nothing was stored."
        return None

    def _note(self, weakness: str | None) -> None:
        if weakness != self._weakness:
            logger.warning("%s.", weakness or "Redis is durable now")
            self._weakness = weakness
