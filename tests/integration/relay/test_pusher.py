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


def test_a_sender_whose_answer_fails_takes_nothing_from_the_others_of_its_batch(redis: Redis, redis_url: str) -> None:
    answers: list[object] = []
    woken: list[object] = []

    def fail(result: object) -> None:
        answers.append("failed")
        raise RuntimeError("a bug")

    async def push_three() -> None:
        client = open_redis(redis_url, connections=BATCHES_IN_FLIGHT)
        pusher = Pusher(client, wake=woken.extend, count=lambda _: None)
        pusher.push_then(entry("store_memory", "walk", key="a", content="x"), fail)
        second = pusher.push(entry("store_memory", "walk", key="b", content="x"))
        running = asyncio.create_task(pusher.run())
        answers.append((await asyncio.wait_for(second, 10)).verdict)
        third = pusher.push(entry("store_memory", "walk", key="c", content="x"))
        answers.append((await asyncio.wait_for(third, 10)).verdict)
        running.cancel()
        await client.aclose()

    asyncio.run(push_three())
    assert answers == ["failed", "accepted", "accepted"]
    assert woken == [shard_of("walk")]
