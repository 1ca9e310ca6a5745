"""What processes count reaches Redis once, whatever happens to them or to Redis meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from redis import Redis

from models.errors import Unavailable
from models.queue.metrics import PROCESSES_KEY, REPORTED_SECONDS
from relay.process_metrics import WAITING_SENDERS, ProcessMetrics, read_states
from relay.redis_client import REDIS_ERRORS, open_redis
from tests.support.metrics import stored_counts as counts
from tests.support.servers import running_valkey


def run(url: str, work: Callable[..., Awaitable[None]], *, processes: int = 1) -> None:
    """Do work with the metrics of so many processes."""

    async def work_and_close() -> None:
        clients = [open_redis(url, connections=2) for _ in range(processes)]
        await work(*map(ProcessMetrics, clients))
        for client in clients:
            await client.aclose()

    asyncio.run(work_and_close())


def states(redis: Redis) -> list[dict[str, float]]:
    return read_states(cast("dict[bytes, bytes]", redis.hgetall(PROCESSES_KEY)))


def test_counts_of_several_processes_add_up(redis: Redis, redis_url: str) -> None:
    async def work(one: ProcessMetrics, other: ProcessMetrics) -> None:
        for metrics in (one, other, one):
            metrics.count_push(3)
            metrics.count_error(Unavailable())
        await one.report()
        await one.report()
        await other.report()

    run(redis_url, work, processes=2)
    assert counts(redis) == {"push_entries:5": 3, "push_entries:sum": 9_000_000, "server_errors:503": 3}


def test_the_state_of_a_process_is_shown_until_it_ends(redis: Redis, redis_url: str) -> None:
    async def work(one: ProcessMetrics, other: ProcessMetrics) -> None:
        one.show(WAITING_SENDERS, lambda: 2)
        other.show(WAITING_SENDERS, lambda: 5)
        await one.report()
        await other.report()
        assert sorted(state["waiting_senders"] for state in states(redis)) == [2, 5]
        await one.end()
        assert states(redis) == [{"waiting_senders": 5}]

    run(redis_url, work, processes=2)


def test_a_process_that_was_killed_is_forgotten(redis: Redis, redis_url: str) -> None:
    seconds, _ = redis.time()
    for name, age in (("killed", REPORTED_SECONDS + 2), ("alive", REPORTED_SECONDS - 5)):
        redis.hset(PROCESSES_KEY, name, f'{seconds - age} {{"waiting_senders": {age}}}')
    redis.hset(PROCESSES_KEY, "unreadable", "x")

    async def work(metrics: ProcessMetrics) -> None:
        await metrics.report()

    run(redis_url, work)
    names = cast("list[bytes]", redis.hkeys(PROCESSES_KEY))
    assert len(names) == 2
    assert b"alive" in names


def test_what_was_counted_while_redis_was_away_is_added_later() -> None:
    with running_valkey() as server:

        async def work(metrics: ProcessMetrics) -> None:
            metrics.count_push(1)
            server.pause()
            for _ in range(3):
                with pytest.raises(REDIS_ERRORS):
                    await metrics.report()
                metrics.count_push(1)
            await asyncio.to_thread(server.restart)
            await metrics.report()

        run(server.url, work)
        with Redis.from_url(server.url) as redis:
            assert counts(redis) == {"push_entries:1": 4, "push_entries:sum": 4_000_000}


def test_counts_are_stored_when_redis_has_no_memory_left(own_redis: Redis, own_redis_url: str) -> None:
    own_redis.config_set("maxmemory", 1)

    async def work(metrics: ProcessMetrics) -> None:
        metrics.count_error(Unavailable())
        await metrics.report()

    run(own_redis_url, work)
    assert counts(own_redis) == {"server_errors:503": 1}


def test_a_report_that_is_cancelled_loses_no_count(redis: Redis, redis_url: str) -> None:
    async def work(metrics: ProcessMetrics) -> None:
        metrics.count_push(1)
        reporting = asyncio.create_task(metrics.report())
        await asyncio.sleep(0)
        reporting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reporting
        await metrics.report()

    run(redis_url, work)
    assert counts(redis)["push_entries:1"] >= 1
