"""Threads shared by sources: turns, shares, and abandoned work."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import pytest

from api.fair_thread_pool import MAX_WAITING, RELAY, FairThreads
from models.errors import TooManyRequests, Unavailable

T = TypeVar("T")


class Gated:
    """Work that blocks until it is released, and records the order in which it began."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.access = threading.Event()
        self.gates: dict[str, threading.Event] = {}

    def work(self, name: str) -> str:
        self.begun.append(name)
        assert self.gates.get(name, self.access).wait(10)
        return name


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def do(fair: FairThreads, source: str, work: Callable[[], T], *, wait_seconds: float = 10) -> T:
    return await fair.run(source, work, wait_seconds=wait_seconds, work_seconds=10)


def run(test: Callable[[FairThreads, Gated], Awaitable[None]], *, threads: int) -> None:
    async def main() -> None:
        fair, gated = FairThreads(threads, name="tests"), Gated()
        try:
            await test(fair, gated)
        finally:
            gated.access.set()
            fair.close()

    asyncio.run(main())


def start(fair: FairThreads, gated: Gated, *names: str) -> list[asyncio.Task[str]]:
    """Begin work. The source is the first letter of its name."""
    return [asyncio.create_task(do(fair, name[0], partial(gated.work, name))) for name in names]


def test_a_source_has_a_quarter_of_the_threads_and_waiting_sources_take_turns() -> None:
    async def test(fair: FairThreads, gated: Gated) -> None:
        first = ["a1", "b1", "c1"]
        gated.gates = {name: threading.Event() for name in first}
        tasks = start(fair, gated, "a1", "a2", "a3", "a4", "a5", "b1", "b2", "b3", "c1", "c2", "d1", "d2", "e1")
        await until(lambda: len(gated.begun) == 8)
        assert sorted(gated.begun) == ["a1", "a2", "b1", "b2", "c1", "c2", "d1", "d2"]
        for count, name in enumerate(first, start=9):
            gated.gates[name].set()
            await until(lambda count=count: len(gated.begun) == count)  # type: ignore[misc]
        assert sorted(gated.begun[8:]) == ["a3", "b3", "e1"]
        gated.access.set()
        assert len(await asyncio.gather(*tasks)) == 13

    run(test, threads=8)


def test_the_relay_itself_never_waits_for_users() -> None:
    async def test(fair: FairThreads, gated: Gated) -> None:
        tasks = start(fair, gated, *(f"{source}{number}" for source in "abcd" for number in range(3)))
        await until(lambda: len(gated.begun) == 8)
        assert await do(fair, RELAY, lambda: "at once") == "at once"
        assert not any(task.done() for task in tasks)
        gated.access.set()
        await asyncio.gather(*tasks)

    run(test, threads=8)


def test_abandoned_work_is_not_begun_and_begun_work_counts_until_it_ends() -> None:
    async def test(fair: FairThreads, gated: Gated) -> None:
        tasks = start(fair, gated, "a1", "a2", "a3", "a4")
        await until(lambda: len(gated.begun) == 2)
        for task in tasks[:3]:
            task.cancel()
        await asyncio.gather(*tasks[:3], return_exceptions=True)
        await asyncio.sleep(0)
        assert fair.has_share("a")
        assert not tasks[3].done()
        gated.access.set()
        assert await tasks[3] == "a4"
        assert "a3" not in gated.begun
        await until(lambda: not fair.has_share("a"))

    run(test, threads=8)


def test_waiting_work_can_be_ended_while_begun_work_goes_on() -> None:
    async def test(fair: FairThreads, gated: Gated) -> None:
        begun, *waiting = start(fair, gated, "a1", "a2", "b1", "c1")
        await until(lambda: gated.begun == ["a1"])
        waiting[1].cancel()
        fair.end_waiting()
        waiting[2].cancel()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable, asyncio.CancelledError, asyncio.CancelledError]
        assert not begun.done()
        gated.access.set()
        assert await begun == "a1"
        assert await asyncio.gather(*start(fair, gated, "a3", "b2")) == ["a3", "b2"]

    run(test, threads=1)


def test_only_the_source_with_too_much_waiting_work_is_refused() -> None:
    async def test(fair: FairThreads, gated: Gated) -> None:
        tasks = start(fair, gated, *(f"a{number}" for number in range(2 + MAX_WAITING)))
        await asyncio.sleep(0)
        with pytest.raises(TooManyRequests) as caught:
            await do(fair, "a", lambda: "more")
        assert caught.value.retry_after_seconds > 0
        assert await do(fair, "b", lambda: "served") == "served"
        gated.access.set()
        await asyncio.gather(*tasks)

    run(test, threads=8)


def test_failing_work_frees_its_thread() -> None:
    async def test(fair: FairThreads, _: Gated) -> None:
        def fail() -> None:
            raise ValueError("no")

        for _number in range(20):
            with pytest.raises(ValueError, match="no"):
                await do(fair, "a", fail)
        await until(lambda: not fair.has_share("a"))

    run(test, threads=8)


def test_a_timeout_says_whether_the_source_itself_is_the_cause() -> None:
    async def test(fair: FairThreads, gated: Gated) -> None:
        tasks = start(fair, gated, *(f"{source}{number}" for source in "abcd" for number in range(2)))
        await until(lambda: len(gated.begun) == 8)
        with pytest.raises(TooManyRequests, match="its share"):
            await do(fair, "a", lambda: "more", wait_seconds=0.01)
        with pytest.raises(Unavailable, match="too many reads"):
            await do(fair, "e", lambda: "more", wait_seconds=0.01)
        gated.access.set()
        await asyncio.gather(*tasks)
        assert await do(fair, "e", lambda: "served") == "served"

    run(test, threads=8)
