"""Simultaneous large bodies: the event loop serves others between two of them, and small ones do not wait."""

from __future__ import annotations

import asyncio
import itertools

from relay.http.bodies import LARGE_BYTES, LargeBodies

LARGE, SMALL = b"x" * LARGE_BYTES, b"x"


def test_others_are_served_between_two_large_bodies_and_small_ones_do_not_wait() -> None:
    done: list[str] = []
    bodies = LargeBodies()

    async def take_apart(name: str, body: bytes) -> None:
        async with bodies.turn(body):
            done.append(name)

    async def serve_others() -> None:
        for _ in range(20):
            done.append("other")
            await asyncio.sleep(0)

    async def all_at_once() -> None:
        large = [take_apart(f"large {number}", LARGE) for number in range(4)]
        await asyncio.gather(*large, take_apart("small", SMALL), serve_others())

    asyncio.run(all_at_once())
    assert [name for name in done if name.startswith("large")] == [f"large {number}" for number in range(4)]
    places = [place for place, name in enumerate(done) if name.startswith("large")]
    assert all("other" in done[one:next_one] for one, next_one in itertools.pairwise(places))
    assert done.index("small") < places[1]


def test_a_refused_large_body_lets_the_next_one_in() -> None:
    bodies = LargeBodies()

    async def refuse() -> None:
        async with bodies.turn(LARGE):
            raise ValueError("Invalid JSON.")

    async def twice() -> list[BaseException | None]:
        return [*await asyncio.gather(refuse(), refuse(), return_exceptions=True)]

    assert [type(error) for error in asyncio.run(twice())] == [ValueError, ValueError]
