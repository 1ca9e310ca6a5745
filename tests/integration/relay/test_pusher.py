"""The pusher: senders are answered as soon as their entries are stored."""

from __future__ import annotations

import asyncio

from redis import Redis

from models.queue.inbox import shard_of
from relay.ingest.pusher import BATCHES_IN_FLIGHT, Pusher
from relay.redis_client import open_redis
from tests.support.stores.inbox import entry


def test_a_sender_is_answered_before_the_drain_is_enqueued(redis: Redis, redis_url: str) -> None:
    """The thread that enqueues it takes the interpreter for about half a millisecond."""
    happened: list[object] = []

    async def push_one() -> None:
        client = open_redis(redis_url, connections=BATCHES_IN_FLIGHT)
        woken = asyncio.Event()

        def wake(shards: object) -> None:
            happened.append(shards)
            woken.set()

        pusher = Pusher(client, wake=wake, count=happened.append)
        running = asyncio.create_task(pusher.run())
        await pusher.push(entry("store_memory", "walk", key="k", content="x"))
        happened.append("answered")
        await asyncio.wait_for(woken.wait(), 10)
        running.cancel()
        await client.aclose()

    asyncio.run(push_one())
    assert happened == [1, "answered", [shard_of("walk")]]
