"""Deleted content is nowhere in the database, neither in a table nor in a recorded response."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from models.tables import METADATA
from sessions.responses.recorded_responses import NOT_RECORDED
from tests.support.stores.effects import delivery, outcome_of
from tests.support.stores.inbox import drain, entry


def where_found(engine: Engine, word: str) -> list[str]:
    """Return the tables that contain a word."""
    with engine.connect() as connection:
        return [
            name
            for name in METADATA.tables
            if connection.scalar(text(f"SELECT count(*) FROM {name} r WHERE r::text LIKE :word"), {"word": f"%{word}%"})
        ]


def item(command: str, **data: Any) -> dict[str, Any]:
    return {"command": command, "data": data}


@pytest.fixture(autouse=True)
def _timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give reads unlimited time, however busy the machine is."""
    for name in ("AT_ONCE_SECONDS", "TOGETHER_SECONDS"):
        monkeypatch.setattr(f"sessions.commands.read_time_budget.{name}", 30.0)


def test_a_deleted_memory_is_nowhere_even_after_every_kind_of_read(redis: Redis, engine: Engine, walk: str) -> None:
    word, key = f"kumquat{secrets.token_hex(6)}", f"key{secrets.token_hex(6)}"
    reads = [
        item("retrieve_memory", key=key),
        item("list_memories"),
        item("query_memories"),
        item("search", q=word),
        item("resume_bundle"),
    ]
    batch = entry("batch", walk, commands=[item("store_memory", key=key, content=word), *reads], waits=True)
    failing = [item("retrieve_memory", key=f"{key}x"), item("delete_memory", key=f"{key}x")]
    partial = entry("batch", walk, mode="partial", commands=[*reads, *failing], waits=True)
    atomic = entry("batch", walk, commands=[*reads, failing[0]], waits=True)
    single = [entry(one["command"], walk, **one["data"], waits=True) for one in [*reads, failing[0]]]
    drain(redis, engine, batch, partial, atomic, *single)
    for asked, where in ((batch, "results"), (partial, "results")):
        told = outcome_of(redis, asked)["body"]["data"][where]
        assert word in str(told)
        assert NOT_RECORDED not in str(told)
    assert key in str(outcome_of(redis, atomic)["body"]["error"]["hint"])
    drain(redis, engine, entry("delete_memory", walk, key=key))
    assert where_found(engine, word) == []
    told = delivery(engine, atomic.delivery_id)
    assert b"memory_not_found" in bytes(told["error"])
    assert b"Did you mean" not in bytes(told["error"])
    assert b"Did you mean" not in bytes(delivery(engine, single[-1].delivery_id)["error"])


def test_a_repeated_batch_returns_its_writes_and_says_that_reads_are_not_recorded(
    redis: Redis, engine: Engine, walk: str
) -> None:
    commands = [item("store_memory", key="k", content="kumquat"), item("list_memories")]
    batch = entry("batch", walk, commands=commands, waits=True)
    drain(redis, engine, batch)
    redis.flushdb()
    drain(redis, engine, batch)
    stored, read = outcome_of(redis, batch)["body"]["data"]["results"]
    assert stored["data"] == {"key": "k", "type": "general", "revision": 1, "created": True}
    assert read == {"command": "list_memories", "status": "success", "message": NOT_RECORDED}


def test_a_recreated_session_gets_no_updates_of_the_deleted_one(redis: Redis, engine: Engine, walk: str) -> None:
    word = f"kumquat{secrets.token_hex(6)}"
    first = entry("delegate_task", walk, task_id=f"first-{walk}", description="first")
    drain(redis, engine, first, entry("delegate_task", walk, description=word, depends_on=[f"first-{walk}"]))
    drain(
        redis,
        engine,
        entry("cancel_task", walk, task_id=f"first-{walk}"),
        entry("delete_session", walk, confirm=walk),
        entry("create_session", walk, title="Anew"),
    )
    assert where_found(engine, word) == []
