"""Resolutions of dead letters by operators: they apply only to dead letters, and the journal records them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from redis import Redis
from sqlalchemy import Engine, text

from models.queue.inbox import (
    BACKLOG_BYTES_KEY,
    BACKLOG_KEY,
    DeadLetterResolution,
    Entry,
    dedup_key,
    drain_pending_key,
    inbox_key,
    seen_value,
    shard_of,
)
from tests.support.stores.effects import status_of
from tests.support.stores.inbox import drain, entry, push
from worker.dead_letters import replay
from worker.inbox import acknowledge, read_entries

REPLAY = DeadLetterResolution(by="ops", at=datetime(2026, 11, 22, 12, 0, tzinfo=UTC))
DISCARD = msgspec.structs.replace(REPLAY, discards=True)


def ruled(item: Entry, resolution: DeadLetterResolution) -> Entry:
    return msgspec.structs.replace(item, resolution=resolution)


def make_dead(redis: Redis, engine: Engine, item: Entry) -> None:
    """Make the entry a dead letter, as a version would that did not know the command."""
    drain(redis, engine, msgspec.structs.replace(item, command="store_dream"))


def journal(engine: Engine, session_id: str) -> list[tuple[str, str, dict[str, Any]]]:
    statement = text("SELECT event, status, data FROM events WHERE session_id = :id ORDER BY event_id")
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(statement, {"id": session_id})][1:]


@pytest.mark.parametrize("resolution", [REPLAY, DISCARD])
def test_a_resolution_of_an_unknown_delivery_does_nothing(
    redis: Redis, engine: Engine, walk: str, resolution: DeadLetterResolution
) -> None:
    item = entry("store_memory", walk, key="k", content=1, resolution=resolution)
    assert drain(redis, engine, item)[0].endswith(": 1 duplicate")
    assert (journal(engine, walk), status_of(engine, item)) == ([], None)
    assert redis.xlen(inbox_key(shard_of(walk))) == 0


@pytest.mark.parametrize("second", [REPLAY, DISCARD])
@pytest.mark.parametrize("first", [REPLAY, DISCARD])
def test_the_first_of_two_resolutions_counts(
    redis: Redis, engine: Engine, walk: str, first: DeadLetterResolution, second: DeadLetterResolution
) -> None:
    item = entry("store_memory", walk, key="k", content=1)
    make_dead(redis, engine, item)
    drain(redis, engine, ruled(item, first))
    after_one = journal(engine, walk)
    assert drain(redis, engine, ruled(item, second))[0].endswith(": 1 duplicate")
    assert drain(redis, engine, ruled(item, second), ruled(item, first))[0].endswith(": 2 duplicate")
    assert journal(engine, walk) == after_one
    assert status_of(engine, item) == ("rejected" if first.discards else "applied")


def test_the_journal_records_who_resolved_a_dead_letter_and_when(redis: Redis, engine: Engine, walk: str) -> None:
    read = entry("list_memories", walk)
    for item in (entry("store_memory", walk, key="k", content=1), read):
        make_dead(redis, engine, item)
        drain(redis, engine, ruled(item, REPLAY))
    given_up = entry("store_memory", walk, key="k", content=2)
    make_dead(redis, engine, given_up)
    drain(redis, engine, ruled(given_up, DISCARD))
    told = journal(engine, walk)
    failed = {"code": "dead_letter"}
    replayed = {"replayed_by": "ops", "replayed_at": "2026-11-22T12:00:00Z"}
    assert told == [
        ("store_dream", "failed", failed),
        ("store_memory", "applied", {"key": "k", "type": "general", "created": True, "revision": 1, **replayed}),
        ("store_dream", "failed", failed),
        ("list_memories", "applied", replayed),
        ("store_dream", "failed", failed),
        (
            "store_memory",
            "rejected",
            {"code": "discarded", "discarded_by": "ops", "discarded_at": "2026-11-22T12:00:00Z"},
        ),
    ]


def test_a_replay_of_a_batch_marks_each_of_its_commands(redis: Redis, engine: Engine, walk: str) -> None:
    commands = [{"command": "store_memory", "data": {"key": f"k{n}", "content": n}} for n in range(2)]
    item = entry("batch", walk, commands=commands)
    make_dead(redis, engine, item)
    drain(redis, engine, ruled(item, REPLAY))
    applied = [event for event in journal(engine, walk) if event[1] == "applied"]
    assert [(data["key"], data["replayed_by"]) for _, _, data in applied] == [("k0", "ops"), ("k1", "ops")]


def test_a_replay_by_a_worker_equals_one_by_the_relay(redis: Redis, engine: Engine, walk: str) -> None:
    """Each has its own code for pushing, as neither imports the other."""
    item = entry("store_memory", walk, key="k", content=1)
    make_dead(redis, engine, item)
    keys = [dedup_key("tests", item.delivery_id), drain_pending_key(shard_of(walk))]

    def take() -> tuple[Entry, list[Any]]:
        """Remove the entry and its keys from Redis. Returns them."""
        marks = [(redis.get(key), redis.ttl(key) > 0) for key in keys]
        (row,) = read_entries(redis, [shard_of(walk)]).entries
        left = [*marks, redis.hgetall(BACKLOG_KEY), redis.hgetall(BACKLOG_BYTES_KEY)]
        acknowledge(redis, [shard_of(walk)], [row], [])
        redis.delete(*keys)
        return row.entry, left

    redis.delete(*keys)
    with engine.connect() as connection:
        assert replay(redis, connection, source="tests", delivery_id=item.delivery_id)
    pushed, by_worker = take()
    push(redis, pushed)
    again, by_relay = take()
    assert again == pushed
    assert by_worker == by_relay
    assert by_relay[:3] == [(seen_value(pushed), False), (b"1", True), {b"tests": b"1"}]
