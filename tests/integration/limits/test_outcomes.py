"""Outcomes for waiting senders: how long they are kept, how much memory one sender can use for them, and that they
never block the inbox."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError
from sqlalchemy import Engine

from models.queue.inbox import (
    OUTCOME_CHANNEL,
    OUTCOME_SECONDS,
    PERMITTED_MEMORY,
    Entry,
    OutcomeMessage,
    dedup_key,
    inbox_key,
    outcome_key,
    shard_of,
)
from tests.support.processes.serving import Serving, set_outcome, wait_for_entry
from tests.support.processes.stack import wait_for
from tests.support.stores.inbox import drain, entry, push
from worker.inbox import OUTCOME_SHARE, SEEN_SECONDS, SEEN_SECONDS_WHEN_SHORT
from worker.outcomes import ANNOUNCED_BYTES

MANY = 60


@pytest.fixture
def redis(own_redis: Redis) -> Redis:
    """A Redis of the test's own, whose limits it changes."""
    return own_redis


@pytest.fixture
def session(redis: Redis, engine: Engine) -> str:
    """A session with a memory of 50,000 characters."""
    session_id = f"walk-{secrets.token_hex(6)}"
    drain(redis, engine, entry("create_session", session_id, title="Walk"))
    drain(redis, engine, entry("store_memory", session_id, key="large", content="x" * 50_000))
    return session_id


def read(session_id: str, *, source: str = "tests", **how: Any) -> Entry:
    """Return a read of the whole large memory, with a waiting sender."""
    asked: dict[str, Any] = {"key": "large", "max_characters": 90_000, "waits": True}
    return entry("retrieve_memory", session_id, source=source, **asked | how)


@contextmanager
def announcements(redis: Redis) -> Iterator[list[OutcomeMessage]]:
    """Collect the announcements made within the block."""
    heard: list[OutcomeMessage] = []
    with closing(redis.pubsub()) as listener:  # type: ignore[no-untyped-call]
        listener.subscribe(OUTCOME_CHANNEL)
        # Others may subscribe to the channel, too: databases of one server share it.
        wait_for(lambda: (told := listener.get_message()) and told["type"] == "subscribe", what="listening")
        yield heard
        redis.publish(OUTCOME_CHANNEL, b"end")
        while True:
            message = listener.get_message(timeout=5)
            if message and message["data"] == b"end":
                return
            if message:
                heard.append(msgspec.json.decode(message["data"], type=OutcomeMessage))


@contextmanager
def limited(redis: Redis, room: int) -> Iterator[int]:
    """Limit the growth of Redis to so many bytes. Yields its memory limit."""
    before = redis.config_get("maxmemory")["maxmemory"]
    limit = int(redis.info("memory")["used_memory"]) + room
    redis.config_set("maxmemory", limit)
    try:
        yield limit
    finally:
        redis.config_set("maxmemory", str(before))


def fill(redis: Redis) -> None:
    """Use up the remaining memory."""
    try:
        for number in range(10_000):
            redis.set(f"filler:{number}", secrets.token_bytes(100_000))
    except OutOfMemoryError:
        return
    pytest.fail("Redis still has memory left.")


# Kept


def test_an_outcome_is_kept_for_a_minute_and_only_for_a_waiting_sender(
    redis: Redis, engine: Engine, session: str
) -> None:
    unheard, heard = read(session, waits=False), read(session)
    drain(redis, engine, unheard, heard)
    assert not redis.exists(outcome_key("tests", unheard.delivery_id, unheard.hash))
    assert 0 < redis.ttl(outcome_key("tests", heard.delivery_id, heard.hash)) <= OUTCOME_SECONDS <= 60


def test_large_outcomes_are_announced_by_their_keys(redis: Redis, engine: Engine, session: str) -> None:
    """Redis disconnects subscribers with 32 MB of unread messages."""
    large, small = read(session), entry("store_memory", session, key="small", content=1, waits=True)
    with announcements(redis) as heard:
        drain(redis, engine, large, small)
    assert [item.outcome is None for item in heard] == [True, False]
    assert len(msgspec.json.encode(heard[1])) < ANNOUNCED_BYTES
    assert heard[0].key == outcome_key("tests", large.delivery_id, large.hash)


def test_the_outcomes_of_one_sender_stay_within_its_share(redis: Redis, engine: Engine, session: str) -> None:
    with limited(redis, 40_000_000) as limit:
        share = limit * PERMITTED_MEMORY * OUTCOME_SHARE
        reads = [read(session, source="greedy") for _ in range(MANY)]
        with announcements(redis) as heard:
            drain(redis, engine, *reads)
        kept = [item for item in heard if item.outcome is None]
        sizes = [int(cast("bytes", redis.get(item.key)).partition(b" ")[0]) for item in kept]
        assert sum(sizes) <= share < sum(sizes) + max(sizes)
        refusals = [item.outcome for item in heard if item.outcome]
        assert len(kept) + len(refusals) == MANY
        assert {refusal.status for refusal in refusals} == {429}
        assert msgspec.json.decode(refusals[0].body)["error"]["code"] == "answer_share"
        # Another sender has a share of its own, and outcomes of writes are always announced.
        modest, change = read(session), entry("store_memory", session, key="k", content=1, source="greedy", waits=True)
        with announcements(redis) as heard:
            drain(redis, engine, modest, change)
        assert heard[0].outcome is None
        assert heard[1].outcome is not None
        assert heard[1].outcome.status == 200


def test_delivered_outcomes_do_not_count_toward_the_share(own_redis_url: str, redis: Redis, tmp_path: Path) -> None:
    body = msgspec.json.encode({"data": "x" * 100_000})
    with closing(Serving("relay", tmp_path, REDIS_URL=own_redis_url)) as serving, ThreadPoolExecutor(1) as pool:
        for number in range(3):
            asked = {"command": "retrieve_memory", "session_id": "s", "id": f"r{number}", "data": {"key": "k"}}
            answer = pool.submit(serving.post, asked, "/v1/webhook?wait=30")
            set_outcome(redis, wait_for_entry(redis, f"r{number}"), body=body, announced=number != 2)
            assert answer.result().content == body
            wait_for(lambda: not list(redis.scan_iter("sr:outcome:*")), what="deleted")
        held = [int(redis.get(key) or 0) for key in redis.scan_iter("sr:held:*")]
        assert held
        assert sum(held) == 0


def test_an_outcome_beyond_the_limit_is_announced_without_its_data(redis: Redis, engine: Engine, session: str) -> None:
    keys = [f"{number:03}-" + "\N{GRINNING FACE}" * 252 for number in range(500)]
    items = [{"command": "store_memory", "data": {"key": key, "content": 1}} for key in keys]
    large = entry("batch", session, commands=items, waits=True)
    with announcements(redis) as heard:
        drain(redis, engine, large)
    assert not redis.exists(outcome_key("tests", large.delivery_id, large.hash))
    assert len(heard) == 1
    assert heard[0].outcome is not None
    assert heard[0].outcome.status == 200
    assert len(msgspec.json.encode(heard[0])) < ANNOUNCED_BYTES
    told = msgspec.json.decode(heard[0].outcome.body)
    assert (told["status"], told["data"]) == ("success", {"truncated": True})
    assert f"/v1/deliveries/{large.delivery_id}" in told["message"]


# Without memory


def test_entries_leave_the_inbox_when_redis_has_no_memory_left(redis: Redis, engine: Engine, session: str) -> None:
    stored = entry("store_memory", session, key="k", content=1, waits=True)
    asked = read(session)
    push(redis, stored, asked)
    with limited(redis, 10_000_000):
        fill(redis)
        with announcements(redis) as heard:
            done = drain(redis, engine)
        assert redis.xlen(inbox_key(shard_of(session))) == 0
    assert done[shard_of(session)].endswith("2 applied")
    assert [item.outcome.status for item in heard if item.outcome] == [200, 429]


def test_outcomes_that_cannot_be_announced_do_not_block_the_shard(
    own_redis_url: str, redis: Redis, engine: Engine, session: str, caplog: pytest.LogCaptureFixture
) -> None:
    push(redis, entry("store_memory", session, key="k", content=1, waits=True))
    redis.acl_setuser("worker", enabled=True, nopass=True, keys=["*"], channels=["sr:journal"], categories=["+@all"])
    try:
        with closing(Redis.from_url(own_redis_url, username="worker", password="any")) as worker:
            drain(worker, engine)
    finally:
        redis.acl_deluser("worker")
    assert redis.xlen(inbox_key(shard_of(session))) == 0
    assert "not all outcomes and counts could be sent" in caplog.text


# Marks of deliveries


def test_dedup_keys_last_for_minutes_or_for_seconds_when_memory_is_low(
    redis: Redis, engine: Engine, session: str
) -> None:
    with limited(redis, 30_000_000) as limit:
        for filler, most in ((0, SEEN_SECONDS), (limit * PERMITTED_MEMORY / 2, SEEN_SECONDS_WHEN_SHORT)):
            redis.set("filler", bytes(int(filler)))
            item = entry("store_memory", session, key="k", content=filler)
            push(redis, item)
            assert redis.ttl(dedup_key("tests", item.delivery_id)) == -1
            drain(redis, engine)
            assert 0 < redis.ttl(dedup_key("tests", item.delivery_id)) <= most
