"""The backlog of each sender: counted exactly, so that no sender fills the inbox or the waiting places alone."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import cast

import msgspec
import pytest
from redis import Redis
from sqlalchemy import Engine

from models.queue.inbox import BACKLOG_BYTES_KEY, BACKLOG_KEY, DeadLetterResolution, inbox_key, shard_of
from relay.ingest.endpoints import WAITING_PLACES
from relay.limits.concurrency import SOURCES_AT_ONCE
from relay.limits.load_shedding import LITTLE_MEMORY
from tests.support.clients.signing import WEBHOOK_SECRET, post_signed
from tests.support.processes.serving import (
    Serving,
    Stopwatch,
    entries,
    memory,
    set_outcome,
    wait_for_entry,
    wait_for_status,
)
from tests.support.processes.stack import new_id, wait_for
from tests.support.project import API_KEY
from tests.support.stores.inbox import drain, entry, push
from worker.inbox import acknowledge, read_entries
from worker.sweeper import clear_backlog

SESSION = "solar-roof"


@pytest.fixture(autouse=True)
def _empty(redis: Redis) -> None:
    """Empty the inbox before each test."""


def backlog(redis: Redis) -> dict[str, int]:
    counts = cast("dict[bytes, bytes]", redis.hgetall(BACKLOG_KEY))
    return {source.decode(): int(count) for source, count in counts.items()}


# Counting


def test_each_entry_counts_for_its_sender_until_it_is_applied(redis: Redis, engine: Engine) -> None:
    session = new_id()
    created = entry("create_session", session, title="x", source="a")
    memories = [entry("store_memory", session, key=f"k{n}", content=n, source="ab"[n % 2]) for n in range(10)]
    assert push(redis, created, *memories) == ["accepted"] * 11
    assert backlog(redis) == {"a": 6, "b": 5}
    assert push(redis, created) == ["duplicate"]
    assert push(redis, msgspec.structs.replace(created, hash="0" * 64)) == ["conflict"]
    assert backlog(redis) == {"a": 6, "b": 5}
    assert push(redis, msgspec.structs.replace(created, waits=True)) == ["duplicate"]
    assert backlog(redis) == {"a": 7, "b": 5}
    drain(redis, engine)
    assert redis.xlen(inbox_key(shard_of(session))) == 0
    assert backlog(redis) == {}


def test_entries_deleted_twice_are_subtracted_once(redis: Redis) -> None:
    """A worker may be suspended after its commit, while another does its work."""
    shard = shard_of(SESSION)
    push(redis, *(entry("store_memory", SESSION, content=n, source="a") for n in range(3)))
    stopped = read_entries(redis, [shard]).entries
    acknowledge(redis, [shard], stopped[:2], [])
    assert backlog(redis) == {"a": 1}
    push(redis, entry("store_memory", SESSION, content="later", source="a"))
    acknowledge(redis, [shard], stopped, [])
    assert backlog(redis) == {"a": 1}
    acknowledge(redis, [shard], stopped, [])
    assert backlog(redis) == {"a": 1}
    acknowledge(redis, [shard], read_entries(redis, [shard]).entries, [])
    assert backlog(redis) == {}


def test_a_replayed_dead_letter_counts_for_its_own_sender(redis: Redis, engine: Engine) -> None:
    revived = entry("store_memory", new_id(), content=1, source="a")
    drain(redis, engine, revived)
    resolution = DeadLetterResolution(by="operator", at=revived.accepted_at)
    push(redis, msgspec.structs.replace(revived, resolution=resolution))
    assert backlog(redis) == {"a": 1}
    drain(redis, engine)
    assert backlog(redis) == {}


def test_quarantined_entries_leave_the_backlog(redis: Redis) -> None:
    shard = shard_of(SESSION)
    push(redis, entry("store_memory", SESSION, content=1, source="a"))
    for body in (b'{"source": "a", "of": "another version"}', b"{not json", b"[]"):
        redis.xadd(inbox_key(shard), {"e": body})
    redis.hincrby(BACKLOG_KEY, "a", 1)
    assert len(read_entries(redis, [shard]).entries) == 1
    assert backlog(redis) == {"a": 1}


def test_uncounted_entries_of_an_older_version_do_not_make_the_backlog_negative(redis: Redis) -> None:
    push(redis, *(entry("store_memory", SESSION, content=n, source="a") for n in range(2)))
    redis.hset(BACKLOG_KEY, "a", 1)
    acknowledge(redis, [shard_of(SESSION)], read_entries(redis, [shard_of(SESSION)]).entries, [])
    assert backlog(redis) == {}


def test_the_sweeper_resets_the_backlog_only_when_the_inbox_is_empty(redis: Redis) -> None:
    push(redis, *(entry("store_memory", session, content=1, source="a") for session in ("s1", "s2")))
    redis.delete(inbox_key(shard_of("s1")))
    clear_backlog(redis)
    assert backlog(redis) == {"a": 2}
    redis.delete(inbox_key(shard_of("s2")))
    clear_backlog(redis)
    assert backlog(redis) == {}


# Shares


def test_one_sender_cannot_fill_the_inbox(redis_url: str, redis: Redis, tmp_path: Path) -> None:
    settings = {"MAX_BACKLOG": "8", "WEBHOOK_SECRETS": f"walker={WEBHOOK_SECRET}"}
    with closing(Serving("relay", tmp_path, REDIS_URL=redis_url, **settings)) as serving:
        assert [serving.post(memory(SESSION)).status_code for _ in range(4)] == [202] * 4
        refused = serving.post(memory(SESSION))
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "backlog_share"
        assert refused.json()["error"]["retryable"] is True
        assert int(refused.headers["retry-after"]) > 0
        assert [post_signed(serving, memory(SESSION), f"m{n}").status_code for n in range(3)] == [202] * 3
        assert backlog(redis) == {"default": 4, "walker": 3}
        # The limit holds after the relay has measured again, until an entry is applied.
        watch, codes = Stopwatch(), set[str]()

        def post_again() -> bool:
            codes.add(serving.post(memory(SESSION)).json().get("error", {}).get("code", ""))
            return watch.seconds > 2.5

        wait_for(post_again, what="another measurement")
        assert codes == {"backlog_share"}
        shard = shard_of(SESSION)
        acknowledge(redis, [shard], read_entries(redis, [shard]).entries[:1], [])
        wait_for_status(202, lambda: serving.post(memory(SESSION)))
        assert serving.post(memory(SESSION)).status_code == 429


def test_a_sender_beyond_its_share_of_waiting_places_gets_a_receipt_at_once(
    redis_url: str, redis: Redis, tmp_path: Path
) -> None:
    share = WAITING_PLACES // SOURCES_AT_ONCE
    with (
        closing(Serving("relay", tmp_path, REDIS_URL=redis_url, WEBHOOK_SECRETS=f"walker={WEBHOOK_SECRET}")) as serving,
        ExitStack() as connections,
        ThreadPoolExecutor(1) as pool,
    ):
        body = msgspec.json.encode(memory(SESSION))
        head = (
            f"POST /v1/webhook?wait=40 HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\nContent-Length: {len(body)}\r\n"
        )
        for _ in range(share):
            waiting = connections.enter_context(socket.create_connection(("127.0.0.1", serving.port)))
            waiting.sendall(head.encode() + b"\r\n" + body)
        wait_for(lambda: len(entries(redis)) == share, what="waiting")
        watch = Stopwatch()
        answer = serving.post(memory(SESSION, id="one-more", sync=True))
        assert watch.seconds < 5
        assert answer.status_code == 202
        assert answer.json()["status"] == "pending"
        assert "Do not send it again" in answer.json()["message"]
        assert answer.json()["status_url"] == "/v1/deliveries/one-more"
        assert not wait_for_entry(redis, "one-more").waits
        other = pool.submit(post_signed, serving, memory(SESSION), path="/v1/webhook?wait=40")
        set_outcome(redis, wait_for_entry(redis, "msg-1"), body=b'{"applied":1}')
        assert other.result().json() == {"applied": 1}
        # A client that disconnects frees its place.
        connections.close()
        last = pool.submit(lambda: wait_for_status(200, lambda: serving.post(memory(SESSION, id="last", sync=True))))
        wait_for(
            lambda: any(item.waits for item in entries(redis) if item.delivery_id == "last"),
            what="entry of the second request",
        )
        for item in entries(redis):
            set_outcome(redis, item, body=b'{"applied":2}')
        assert last.result().json() == {"applied": 2}


def test_a_burst_of_large_bodies_between_two_measurements_does_not_fill_redis(
    own_redis_url: str, own_redis: Redis, tmp_path: Path
) -> None:
    room, count = 20_000_000, 40
    limit = int((int(own_redis.info("memory")["used_memory"]) + room) / 0.7)
    own_redis.config_set("maxmemory", limit)
    settings = {"REDIS_URL": own_redis_url, "WEBHOOK_SECRETS": f"walker={WEBHOOK_SECRET}"}
    with closing(Serving("relay", tmp_path, **settings)) as serving, ThreadPoolExecutor(count) as pool:
        body = memory(SESSION, text="x" * 1_000_000)
        senders = [lambda _: serving.post(body), lambda number: post_signed(serving, body, f"large-{number}")]
        answers = list(pool.map(lambda number: senders[number % 2](number), range(count)))
        stored = [answer for answer in answers if answer.status_code == 202]
        refused = [answer.json()["error"] for answer in answers if answer.status_code in (429, 503)]
        assert 10 <= len(stored) <= room // 1_000_000
        assert len(stored) + len(refused) == count
        # Which limit comes first depends on how fast the relay measures.
        assert {error["code"] for error in refused if error["message"] != LITTLE_MEMORY} <= {"backlog_share"}
        # For a moment, each connection still holds the buffer of its last large command.
        wait_for(lambda: int(own_redis.info("memory")["used_memory"]) < limit * 0.75, what="buffers freed")
        wait_for_status(202, lambda: post_signed(serving, memory(SESSION), new_id()))  # A small body is still accepted.


def test_large_bodies_of_one_sender_leave_room_for_the_others(
    own_redis_url: str, own_redis: Redis, tmp_path: Path
) -> None:
    own_redis.config_set("maxmemory", "64mb")
    settings = {"REDIS_URL": own_redis_url, "WEBHOOK_SECRETS": f"walker={WEBHOOK_SECRET}"}
    with closing(Serving("relay", tmp_path, **settings)) as serving:
        body = memory(SESSION, text="x" * 1_000_000)
        # Until the relay measures again, it counts some bodies twice.
        refused = wait_for_status(429, lambda: serving.post(body))
        assert refused.json()["error"]["code"] == "backlog_share"
        watch, statuses = Stopwatch(), set[tuple[int, int]]()

        def post_both() -> bool:
            large, small = serving.post(body), post_signed(serving, memory(SESSION), new_id())
            statuses.add((large.status_code, small.status_code))
            return watch.seconds > 3

        wait_for(post_both, what="more measurements")
        assert statuses <= {(202, 202), (429, 202)}
        held = cast("dict[bytes, bytes]", own_redis.hgetall(BACKLOG_BYTES_KEY))
        assert 10_000_000 < int(held[b"default"]) <= 64 * 2**20 * 0.7 / 2
        shard = shard_of(SESSION)
        while waiting := read_entries(own_redis, [shard]).entries:
            acknowledge(own_redis, [shard], waiting, [])
        assert own_redis.hgetall(BACKLOG_BYTES_KEY) == {}
        wait_for_status(202, lambda: serving.post(body))
