"""Repeating a read for a waiting sender."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine

from api.database import Database
from api.sessions.repeated_reads import read_again
from models.commands.definitions import GetTask, ResumeBundle
from models.errors import Unavailable
from models.queue.inbox import Outcome
from models.settings import Settings
from relay.auth.authentication import Caller
from sessions.commands.store import too_slow
from tests.support.processes.stack import new_id
from tests.support.stores.inbox import entry
from tests.support.stores.rows import Rows

CALLER = Caller(source="tests", scopes=("read", "write"))


def test_a_read_that_times_out_does_not_replace_the_previous_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_slowly(*_: Any) -> Any:
        raise too_slow()

    monkeypatch.setattr("api.sessions.repeated_reads.read", read_slowly)
    asked = entry("get_task", "walk", task_id="t")

    async def read() -> None:
        database = Database(settings)
        try:
            await read_again(database, CALLER, asked, GetTask(task_id="t"))
        finally:
            database.close()

    with pytest.raises(Unavailable):
        asyncio.run(read())


def test_a_bundle_of_the_latest_session_tells_its_updates(settings: Settings, engine: Engine) -> None:
    session_id = new_id("bundle")
    with engine.begin() as connection:
        Rows(connection, session_id).task("t", "Bake", status="completed")
    asked = msgspec.structs.replace(entry("resume_bundle", None), session_glob=session_id)

    async def read() -> Outcome:
        database = Database(settings)
        try:
            return await read_again(database, CALLER, asked, ResumeBundle())
        finally:
            database.close()

    told = msgspec.json.decode(asyncio.run(read()).body)
    assert told["data"]["session"]["session_id"] == session_id
    assert [(update["task_id"], update["status"]) for update in told["updates"]] == [("t", "completed")]
