"""Distributed rate limiter: counts in Redis for all processes, in a sliding window, per source.

A round trip for each request would cost a third of the throughput. So a process reserves quota of a busy source in
blocks, spends it locally, and remembers for a moment that the limit is exhausted.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time

import msgspec
from limits import RateLimitItem
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from models.errors import TooManyRequests
from relay.redis_client import REDIS_ERRORS

BLOCKS_PER_LIMIT = 100
"""Blocks per limit: a block is at most a hundredth of it, so a process that does not spend its block wastes little."""
BUSY_SECONDS = 0.25
"""A block that is spent sooner is doubled the next time."""
RECENT_SECONDS = 2.0
"""Until then, as much is reserved as was spent of the last block, and later only what is needed."""
HOLD_SECONDS = 1.0
"""The rest of a block expires after that."""
REFUSE_SECONDS = 1.0
"""A refusal is repeated for at most that long without asking Redis."""
ANSWER_SECONDS = 0.5
"""Without an answer within that time requests are not limited: no request waits for it, and without Redis no webhook
is accepted anyway."""
AWAY_SECONDS = 1.0
"""Redis is then not asked again for that long."""
MAX_SOURCES = 10_000
"""Sources that are remembered, all with valid credentials. A forgotten source reserves quota anew."""

logger = logging.getLogger(__name__)


class RateLimitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A source's remaining quota now; some more is free after `reset_seconds`."""

    limit: int
    remaining: int
    reset_seconds: int


class RateLimiter:
    """Limits one quantity; `what` is its plural noun for messages, such as "requests"."""

    def __init__(self, what: str, item: RateLimitItem, storage: RedisStorage) -> None:
        self._what = what
        self._item = item
        self._storage = storage
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._shares: dict[str, SourceQuota] = {}
        self._away_until = 0.0

    async def hit(self, source: str, amount: int) -> None:
        """Use `amount` of the quota. Raises TooManyRequests. Without Redis nothing is limited."""
        if self.spend(source, amount):
            return
        share = self._shares.get(source) or self._add(source)
        self._extend_refusal(share, time.monotonic())
        async with share.reserving:  # Requests that arrive meanwhile share one reservation.
            now = time.monotonic()
            if share.spend(amount, now) or now < self._away_until:
                return
            self._extend_refusal(share, now)
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._reserve_block(source, share, amount)
            except (*REDIS_ERRORS, TimeoutError) as error:
                logger.warning(
                    "Not limiting %s of senders: Redis does not answer (%s).",
                    self._what,
                    type(error).__name__,
                )
                self._away_until = time.monotonic() + AWAY_SECONDS
                return
            self._extend_refusal(share, now)
            share.spend(amount, now)

    def spend(self, source: str, amount: int) -> bool:
        """Use `amount` of the quota that this process has reserved; returns whether it was enough. Most requests need
        nothing else."""
        share = self._shares.get(source)
        return share is not None and share.spend(amount, time.monotonic())

    def holds(self, source: str, amount: int) -> bool:
        """Whether `spend` would succeed now, and `check` not raise."""
        share, now = self._shares.get(source), time.monotonic()
        return share is not None and share.refused_until <= now <= share.held_until and amount <= share.in_hand

    def check(self, source: str) -> None:
        """Raise TooManyRequests if the limit was exhausted just now."""
        if share := self._shares.get(source):
            self._extend_refusal(share, time.monotonic())

    def status_of(self, source: str) -> RateLimitStatus | None:
        """Returns the remaining quota, or None if it is not known."""
        share, now = self._shares.get(source), time.monotonic()
        if share is None or now < self._away_until:
            return None
        return RateLimitStatus(
            limit=self._item.amount,
            remaining=0 if now < share.refused_until else share.left + share.in_hand,
            reset_seconds=max(1, math.ceil(share.reset_at - now)),
        )

    async def _reserve_block(self, source: str, share: SourceQuota, amount: int) -> None:
        """Reserve a block, or what is needed, or record a refusal."""
        now = time.monotonic()
        wanted = share.next_block(now)
        # What is in hand is part of the amount, so that others cannot spend it meanwhile.
        held, share.in_hand = share.in_hand if now <= share.held_until else 0, 0
        try:
            await self._reserve(source, share, amount - held, wanted, now)
        finally:
            share.in_hand += held

    async def _reserve(self, source: str, share: SourceQuota, missing: int, wanted: int, now: float) -> None:
        block = max(missing, min(wanted, self._item.amount // BLOCKS_PER_LIMIT))
        granted = await self._limiter.hit(self._item, self._what, source, cost=block)
        if not granted and block > missing:
            block = missing
            granted = await self._limiter.hit(self._item, self._what, source, cost=block)
        window = await self._refresh(source)
        share.left = max(0, self._item.amount - window.used)
        share.reset_at = now + window.free_seconds(1)
        if granted:
            share.in_hand += block
            share.held_until = now + HOLD_SECONDS
            share.block, share.reserved_at = block, now
            return
        free_seconds = window.free_seconds(missing - share.left)
        share.free_at = now + free_seconds
        # A hundredth of the window frees a block again.
        share.refused_until = now + min(REFUSE_SECONDS, max(free_seconds, window.seconds / BLOCKS_PER_LIMIT))

    async def _refresh(self, source: str) -> Window:
        seconds = self._item.get_expiry()
        key = self._item.key_for(self._what, source)
        before, before_seconds, now, now_seconds = await self._storage.get_sliding_window(key, seconds)
        # Counts are kept for another window, in which they fade.
        now_seconds = max(0.0, now_seconds - seconds)
        return Window(seconds=seconds, before=before, before_seconds=before_seconds, now=now, now_seconds=now_seconds)

    def _extend_refusal(self, share: SourceQuota, now: float) -> None:
        if now < share.refused_until:
            raise TooManyRequests(
                f"This sender has used up its limit of {self._item.amount:,} {self._what} in "
                f"{self._item.get_expiry():,} seconds.",
                retry_after_seconds=max(1, math.ceil(share.free_at - now)),
                hint="Wait for the time in Retry-After. Several commands in one batch count as one request.",
            )

    def _add(self, source: str) -> SourceQuota:
        if len(self._shares) >= MAX_SOURCES:
            self._shares.clear()
        return self._shares.setdefault(source, SourceQuota())


class SourceQuota:
    """One source's quota as this process knows it. Times are of the monotonic clock."""

    def __init__(self) -> None:
        self.reserving = asyncio.Lock()
        self.in_hand = 0
        self.held_until = 0.0
        self.block = 0
        self.reserved_at = 0.0
        self.left = 0
        """Quota beyond what is in hand, at the last reservation."""
        self.reset_at = 0.0
        self.refused_until = 0.0
        self.free_at = 0.0
        """When the refused amount will be granted."""

    def next_block(self, now: float) -> int:
        """Returns how much to reserve, by how soon and how far the last block was spent."""
        age = now - self.reserved_at
        if age < BUSY_SECONDS:
            return self.block * 2
        return self.block - self.in_hand if age < RECENT_SECONDS else 0

    def spend(self, amount: int, now: float) -> bool:
        """Spend from the quota in hand; returns whether it was enough."""
        if now > self.held_until or self.in_hand < amount:
            return False
        self.in_hand -= amount
        return True


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Usage in the current window, and in the one before, which counts less the older it is."""

    seconds: int
    """Length of a window."""
    before: int
    before_seconds: float
    """Time for which the previous window still counts."""
    now: int
    now_seconds: float
    """Time for which the current window goes on."""

    @property
    def used(self) -> int:
        """Usage that counts at this moment."""
        return math.floor(self._fading) + self.now

    def free_seconds(self, amount: int) -> float:
        """Returns the seconds until `amount` (at least 1) of it has faded, if nothing is added."""
        whole = math.floor(self._fading)
        if amount <= whole:
            return (self._fading - whole + amount - 1) * self.seconds / self.before
        return self.now_seconds + (amount - whole - 1) * self.seconds / max(1, self.now)

    @property
    def _fading(self) -> float:
        return self.before * self.before_seconds / self.seconds
