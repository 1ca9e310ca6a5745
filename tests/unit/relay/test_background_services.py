"""Background services are restarted after a bug, and end with the process."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from relay.ingest import endpoints
from relay.ingest.endpoints import keep_running, stop_services
from relay.notifications.background import run_together


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "STOP_SECONDS", 0.01)
    monkeypatch.setattr(endpoints, "RESTART_SECONDS", 0.0)


@pytest.mark.parametrize("missed", [0, 1, 3])
@pytest.mark.parametrize("is_part", [False, True])
def test_a_service_that_misses_cancellations_is_stopped(missed: int, *, is_part: bool) -> None:
    cancellations = 0

    async def miss() -> None:
        nonlocal cancellations
        while cancellations < missed:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            cancellations += 1
        await asyncio.Event().wait()

    async def run() -> None:
        if is_part:
            await run_together(asyncio.sleep(3600), miss())
        else:
            await miss()

    async def main() -> bool:
        task = asyncio.create_task(keep_running(run))
        await asyncio.sleep(0.001)
        await stop_services([task])
        return task.cancelled() and len(asyncio.all_tasks()) == 1

    assert asyncio.run(main())
    assert cancellations == missed


def test_the_other_parts_of_a_service_end_with_one_that_fails() -> None:
    async def fail() -> None:
        raise RuntimeError

    async def main() -> int:
        with pytest.raises(RuntimeError):
            await run_together(asyncio.sleep(3600), fail())
        return len(asyncio.all_tasks())

    assert asyncio.run(main()) == 1


def test_a_service_that_never_stops_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    is_released = False

    async def persist() -> None:
        while not is_released:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.001)

    async def main() -> None:
        nonlocal is_released
        task = asyncio.create_task(persist())
        await asyncio.sleep(0)
        await stop_services([task])
        is_released = True
        await task

    asyncio.run(main())
    assert "Bug: 1 background service did not stop: {" in caplog.text


def test_a_service_that_fails_is_restarted(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        is_restarted = asyncio.Event()
        starts = 0

        async def fail() -> None:
            nonlocal starts
            starts += 1
            if starts == 3:
                is_restarted.set()
            raise RuntimeError

        task = asyncio.create_task(keep_running(fail))
        await is_restarted.wait()
        await stop_services([task])

    asyncio.run(main())
    assert "Bug: a background service ended." in caplog.text
