"""Waiting places, and one source's share of them."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack

import pytest
from redis.asyncio import Redis

from models.errors import TooManyRequests, Unavailable
from relay.limits.concurrency import SOURCES_AT_ONCE, ConcurrencyLimiter
from relay.notifications.journal import MAX_LISTENERS, JournalNotifier


def test_one_source_gets_a_quarter_of_the_places() -> None:
    places = ConcurrencyLimiter(8)
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(places.acquire("greedy"))
        with pytest.raises(TooManyRequests) as caught:
            places.require_free_slot("greedy")
        assert (caught.value.status, caught.value.code) == (429, "rate_limited")
        assert caught.value.retry_after_seconds > 0
        assert caught.value.body()["retryable"] is True
        places.require_free_slot("modest")
    places.require_free_slot("greedy")


def test_further_requests_are_refused_when_all_places_are_taken() -> None:
    places = ConcurrencyLimiter(4)
    with ExitStack() as held:
        for source in "abcd":
            held.enter_context(places.acquire(source))
        with pytest.raises(Unavailable, match="send this one without waiting"):
            held.enter_context(places.acquire("e"))
    with places.acquire("e"):
        pass


def test_one_sender_gets_a_quarter_of_the_places_for_streams() -> None:
    async def find_positions(_: Collection[str]) -> dict[str, int]:
        return {}

    journal = JournalNotifier(Redis(), find_positions)
    with ExitStack() as held:
        for number in range(MAX_LISTENERS // SOURCES_AT_ONCE):
            held.enter_context(journal.listen(f"session-{number % 3}", source="greedy"))
        with pytest.raises(TooManyRequests):
            journal.require_place("greedy")
        with pytest.raises(TooManyRequests):
            held.enter_context(journal.listen("session-1", source="greedy"))
        held.enter_context(journal.listen("session-1", source="modest"))
    journal.require_place("greedy")
