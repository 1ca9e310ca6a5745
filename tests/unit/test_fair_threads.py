"""Threads that sources share: turns, shares, and work that nobody waits for any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from api.fair_threads import MAX_WAITING, RELAY, FairThreads
from models.errors import TooManyRequests


class Gated:
    """Work that goes on until it is let go, and remembers in which order it was begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gate = threading.Event()
        self.gates: dict[str, threading.Event] = {}

    def work(self, name: str) -> str:
        self.begun.append(name)
        assert self.gates.get(name, self.gate).wait(10)
        return name


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def run(test: Callable[[FairThreads, Gated], Awaitable[None]], *, threads: int) -> None:
    async def main() -> None:
        fair, gated = FairThreads(threads, name="tests"), Gated()
        try:
            await test(fair, gated)
        finally:
            gated.gate.set()
            fair.close()

    asyncio.run(main())


def start(fair: FairThreads, gated: Gated, *names: str) -> list[asyncio.Task[str]]:
    """Begin work; the source is the first letter of its name."""
    return [asyncio.create_task(fair.run(name[0], partial(gated.work, name))) for name in names]


def test_a_source_has_a_quarter_of_the_threads_and_those_that_wait_take_turns() -> None:
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
        gated.gate.set()
        assert len(await asyncio.gather(*tasks)) == 13

    run(test, threads=8)


def test_the_relay_itself_never_waits_for_users() -> None:
    async def test(fair: FairThreads, gated: Gated) -> None:
        tasks = start(fair, gated, *(f"{source}{number}" for source in "abcd" for number in range(3)))
        await until(lambda: len(gated.begun) == 8)
        assert await fair.run(RELAY, lambda: "at once") == "at once"
        assert not any(task.done() for task in tasks)
        gated.gate.set()
        await asyncio.gather(*tasks)

    run(test, threads=8)


def test_what_was_given_up_while_it_waited_is_not_done_and_what_had_begun_counts_until_it_ends() -> None:
    async def test(fair: FairThreads, gated: Gated) -> None:
        tasks = start(fair, gated, "a1", "a2", "a3", "a4")
        await until(lambda: len(gated.begun) == 2)
        for task in tasks[:3]:
            task.cancel()
        await asyncio.gather(*tasks[:3], return_exceptions=True)
        await asyncio.sleep(0)
        assert fair.has_share("a")
        assert not tasks[3].done()
        gated.gate.set()
        assert await tasks[3] == "a4"
        assert "a3" not in gated.begun
        await until(lambda: not fair.has_share("a"))

    run(test, threads=8)


def test_more_than_may_wait_is_refused_to_its_source_alone() -> None:
    async def test(fair: FairThreads, gated: Gated) -> None:
        tasks = start(fair, gated, *(f"a{number}" for number in range(2 + MAX_WAITING)))
        await asyncio.sleep(0)
        with pytest.raises(TooManyRequests) as caught:
            await fair.run("a", lambda: "more")
        assert caught.value.retry_after_seconds > 0
        assert await fair.run("b", lambda: "served") == "served"
        gated.gate.set()
        await asyncio.gather(*tasks)

    run(test, threads=8)


def test_work_that_fails_gives_its_thread_back() -> None:
    async def test(fair: FairThreads, _: Gated) -> None:
        def fail() -> None:
            raise ValueError("no")

        for _number in range(20):
            with pytest.raises(ValueError, match="no"):
                await fair.run("a", fail)
        await until(lambda: not fair.has_share("a"))

    run(test, threads=8)
