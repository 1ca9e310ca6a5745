"""One limit in a time, for each source by itself: counted in Redis, for all processes together, and drawn in lots.

A round trip for each request would cost a third of the throughput. So a process that is busy with a source draws
allowances in lots, uses them up by itself, and remembers for a moment that there are none left.
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

LOTS = 100
"""Of a limit: a lot is at most one of them, so that a process that keeps one to itself keeps hardly anything."""
BUSY_SECONDS = 0.25
"""A source for which a lot does not last that long gets twice as much the next time; others draw what they need."""
HOLD_SECONDS = 1.0
"""What is left of a lot after that is given up."""
REFUSE_SECONDS = 1.0
"""How long at most a refusal is repeated without asking again."""
ANSWER_SECONDS = 0.5
"""Without an answer for so long there is no limit: nobody is kept waiting for it, and without Redis no webhook is
taken anyway."""
AWAY_SECONDS = 1.0
"""How long Redis is not asked again then."""
MAX_SOURCES = 10_000
"""That are remembered. All of them are known senders; whoever is forgotten draws anew."""

logger = logging.getLogger(__name__)


class RateLimitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a source may still use: so much now, and some more after `reset_seconds`."""

    limit: int
    remaining: int
    reset_seconds: int


class RateLimiter:
    """A limit on one kind of thing, `what` in a word."""

    def __init__(self, what: str, item: RateLimitItem, storage: RedisStorage) -> None:
        self._what = what
        self._item = item
        self._storage = storage
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._shares: dict[str, _SourceQuota] = {}
        self._away_until = 0.0

    async def hit(self, source: str, amount: int) -> None:
        """Use so much of it. Raises TooManyRequests. Without Redis there is no limit."""
        share, now = self._shares.get(source) or self._add(source), time.monotonic()
        if share.spend(amount, now):
            return
        self._extend_refusal(share, now)
        async with share.drawing:  # Whoever comes meanwhile draws once, together.
            now = time.monotonic()
            if share.spend(amount, now) or now < self._away_until:
                return
            self._extend_refusal(share, now)
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._reserve_block(source, share, amount)
            except (*REDIS_ERRORS, TimeoutError) as error:
                logger.warning("The %s of senders are not limited for a moment (%s).", self._what, type(error).__name__)
                self._away_until = time.monotonic() + AWAY_SECONDS
                return
            self._extend_refusal(share, now)
            share.spend(amount, now)

    def check(self, source: str) -> None:
        """Raise TooManyRequests if more was refused just now."""
        if share := self._shares.get(source):
            self._extend_refusal(share, time.monotonic())

    def status_of(self, source: str) -> RateLimitStatus | None:
        """What is left, unless it is not known."""
        share, now = self._shares.get(source), time.monotonic()
        if share is None or now < self._away_until:
            return None
        return RateLimitStatus(
            limit=self._item.amount,
            remaining=0 if now < share.refused_until else share.left + share.in_hand,
            reset_seconds=max(1, math.ceil(share.reset_at - now)),
        )

    async def _reserve_block(self, source: str, share: _SourceQuota, amount: int) -> None:
        """Get a lot, or what is needed, or a refusal."""
        now = time.monotonic()
        if now > share.held_until:
            share.in_hand = 0
        missing = amount - share.in_hand
        doubled = share.lot * 2 if now - share.drawn_at < BUSY_SECONDS else 0
        lot = max(missing, min(doubled, self._item.amount // LOTS))
        granted = await self._limiter.hit(self._item, self._what, source, cost=lot)
        if not granted and lot > missing:
            lot = missing
            granted = await self._limiter.hit(self._item, self._what, source, cost=lot)
        window = await self._refresh(source)
        share.left = max(0, self._item.amount - window.used)
        share.reset_at = now + window.free_seconds(1)
        if granted:
            share.in_hand += lot
            share.held_until = now + HOLD_SECONDS
            share.lot, share.drawn_at = lot, now
            return
        free_seconds = window.free_seconds(missing - share.left)
        share.free_at = now + free_seconds
        # In the hundredth part of its time a limit lets a lot through again.
        share.refused_until = now + min(REFUSE_SECONDS, max(free_seconds, window.seconds / LOTS))

    async def _refresh(self, source: str) -> Window:
        seconds = self._item.get_expiry()
        key = self._item.key_for(self._what, source)
        before, before_seconds, now, now_seconds = await self._storage.get_sliding_window(key, seconds)
        # What is counted now is kept for another window, in which it fades.
        now_seconds = max(0.0, now_seconds - seconds)
        return Window(seconds=seconds, before=before, before_seconds=before_seconds, now=now, now_seconds=now_seconds)

    def _extend_refusal(self, share: _SourceQuota, now: float) -> None:
        if now < share.refused_until:
            raise TooManyRequests(
                f"This sender has used up its limit of {self._item.amount:,} {self._what} in "
                f"{self._item.get_expiry():,} seconds.",
                retry_after_seconds=max(1, math.ceil(share.free_at - now)),
                hint="Wait as long as Retry-After says. Several commands in one batch count as one request.",
            )

    def _add(self, source: str) -> _SourceQuota:
        if len(self._shares) >= MAX_SOURCES:
            self._shares.clear()
        return self._shares.setdefault(source, _SourceQuota())


class _SourceQuota:
    """What this process knows of one source's limit. Times are those of the monotonic clock."""

    def __init__(self) -> None:
        self.drawing = asyncio.Lock()
        self.in_hand = 0
        self.held_until = 0.0
        self.lot = 0
        self.drawn_at = 0.0
        self.left = 0
        """Beside what is in hand, at the last draw."""
        self.reset_at = 0.0
        self.refused_until = 0.0
        self.free_at = 0.0
        """When what was refused would be granted."""

    def spend(self, amount: int, now: float) -> bool:
        """Take it from what is in hand, if that is enough."""
        if now > self.held_until or self.in_hand < amount:
            return False
        self.in_hand -= amount
        return True


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What was used in the window of time that goes on, and in the one before it, which counts less the older it is."""

    seconds: int
    """How long a window is."""
    before: int
    before_seconds: float
    """How long the one before it still counts."""
    now: int
    now_seconds: float
    """How long the window that goes on still does."""

    @property
    def used(self) -> int:
        """What counts at this moment."""
        return math.floor(self._fading) + self.now

    def free_seconds(self, amount: int) -> float:
        """When so much of it, at least 1, counts no more, if nothing is added."""
        whole = math.floor(self._fading)
        if amount <= whole:
            return (self._fading - whole + amount - 1) * self.seconds / self.before
        return self.now_seconds + (amount - whole - 1) * self.seconds / max(1, self.now)

    @property
    def _fading(self) -> float:
        return self.before * self.before_seconds / self.seconds
