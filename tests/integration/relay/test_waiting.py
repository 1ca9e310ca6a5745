"""Listing the waiting entries of the inbox."""

from __future__ import annotations

import asyncio

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from api.operations.pending_deliveries import list_waiting
from models.queue.inbox import Entry
from sessions.reads.results import Page
from tests.support.stores.inbox import entry, push


def look(redis_url: str, *, limit: int, session_id: str) -> Page:
    def matches(item: Entry) -> bool:
        return item.session_id == session_id

    async def work() -> Page:
        async with AsyncRedis.from_url(redis_url) as client:
            return await list_waiting(client, limit=limit, matches=matches)

    return asyncio.run(work())


def test_waiting_entries_are_listed_newest_first_over_several_steps(redis: Redis, redis_url: str) -> None:
    sent = [entry("store_memory", "walk", key=f"k{n}", content=n) for n in range(25)]
    push(redis, *sent, entry("store_memory", "other", content=1))
    page = look(redis_url, limit=100, session_id="walk")
    assert [item["delivery_id"] for item in page.items] == [item.delivery_id for item in reversed(sent)]
    assert not page.truncated
    few = look(redis_url, limit=3, session_id="walk")
    assert [item["delivery_id"] for item in few.items] == [item.delivery_id for item in reversed(sent[-3:])]
    assert few.truncated


def test_a_backlog_of_large_entries_is_read_only_in_part(redis: Redis, redis_url: str) -> None:
    push(redis, *(entry("conversation_chunk", "walk", content=f"{n}" + "x" * 200_000) for n in range(40)))
    page = look(redis_url, limit=100, session_id="walk")
    assert len(page.items) == 10
    assert page.truncated
