"""Repeating a read for a waiting sender."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.database import Database
from api.sessions.repeated_reads import read_again
from models.commands.definitions import GetTask
from models.errors import Unavailable
from models.settings import Settings
from relay.auth.authentication import Caller
from sessions.commands.store import too_slow
from tests.support.stores.inbox import entry


def test_a_read_that_times_out_does_not_replace_the_previous_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_slowly(*_: Any) -> Any:
        raise too_slow()

    monkeypatch.setattr("api.sessions.repeated_reads.read", read_slowly)
    caller = Caller(source="tests", scopes=("read", "write"))
    asked = entry("get_task", "walk", task_id="t")

    async def read() -> None:
        database = Database(settings)
        try:
            await read_again(database, caller, asked, GetTask(task_id="t"))
        finally:
            database.close()

    with pytest.raises(Unavailable):
        asyncio.run(read())
