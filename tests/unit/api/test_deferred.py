"""Objects that are made when they are first needed, and what the app imports before."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from api.deferred import Deferred
from tests.support.project import ROOT


def test_an_object_is_made_once_while_other_requests_go_on() -> None:
    others_went_on = threading.Event()
    made: list[object] = []

    def make() -> object:
        assert others_went_on.wait(20)
        made.append(object())
        return made[-1]

    async def ask_at_once() -> list[object]:
        deferred = Deferred(make)
        asking = [asyncio.create_task(deferred.get()) for _ in range(3)]
        await asyncio.sleep(0)
        asking[0].cancel()  # Its client has gone.
        others_went_on.set()
        return [*await asyncio.gather(*asking[1:]), await deferred.get()]

    given = asyncio.run(ask_at_once())
    assert len(made) == 1
    assert given == made * 3


def test_an_object_that_could_not_be_made_is_tried_again() -> None:
    results: Iterator[str | ImportError] = iter([ImportError("missing"), "made"])

    def make() -> str:
        result = next(results)
        if isinstance(result, ImportError):
            raise result
        return result

    async def ask_twice() -> str:
        deferred = Deferred(make)
        with pytest.raises(ImportError, match="missing"):
            await deferred.get()
        return await deferred.get()

    assert asyncio.run(ask_twice()) == "made"


def test_the_app_starts_without_the_mcp_sdk_and_its_libraries() -> None:
    """They were half of its start."""
    command = [sys.executable, "-P", "-c", "import sys, api.app; print(*sys.modules)"]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    modules = {name.split(".")[0] for name in done.stdout.split()}
    assert "starlette" in modules
    assert modules.isdisjoint({"mcp", "mcp_types", "pydantic", "httpx", "httpx2", "jsonschema", "alembic"})
