"""Repeats at a hook: decided by the sender's id, or else by equal bodies within some minutes."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from redis import Redis
from sqlalchemy import Engine, text
from starlette.datastructures import Headers

from models.commands.content_ids import REPEAT_SECONDS
from models.queue.inbox import DeadLetterResolution, Entry, dedup_key, inbox_key, make_entry, shard_of
from relay.ingest.token_webhooks import parse_hook, read_event
from sessions.commands.manager import SessionManager
from sessions.postgres.commands.store import PostgresStore
from sessions.postgres.operations.dead_letters import DeadLetterFilter, entries_to_rule
from tests.support.stores.inbox import drain, entry, push
from worker.inbox import read_entries

NOW = datetime.now(UTC)
MINUTE = timedelta(minutes=1)
WINDOW = timedelta(seconds=REPEAT_SECONDS)


@pytest.fixture
def deploys(redis: Redis, engine: Engine) -> str:
    """A session for events."""
    session_id = f"deploys-{secrets.token_hex(6)}"
    drain(redis, engine, entry("create_session", session_id, title="Deploys"))
    return session_id


def event(session_id: str, body: bytes = b'{"status": "down"}', *, at: datetime = NOW, sender_id: str = "") -> Entry:
    """Return the entry that the relay makes of a post to a hook."""
    headers = Headers({"Idempotency-Key": sender_id} if sender_id else {})
    submission = parse_hook(read_event(body, headers=headers), session_id=session_id, name="probe", at=at)
    origin: dict[str, Any] = {"source": f"probe-{session_id}", "accepted_at": at, "scopes": ["hook"]}
    assert submission.delivery_id is not None
    return make_entry(submission, delivery_id=submission.delivery_id, **origin)


def stored(engine: Engine, session_id: str) -> list[int]:
    """Return the revisions of all memories."""
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT revision FROM memories WHERE session_id = :id"), {"id": session_id})
        return list(rows.scalars())


def deliveries(engine: Engine, session_id: str) -> dict[str, str]:
    with engine.connect() as connection:
        query = {"source": f"probe-{session_id}"}
        rows = connection.execute(text("SELECT delivery_id, status FROM deliveries WHERE source = :source"), query)
        return {row.delivery_id: row.status for row in rows}


def test_equal_bodies_without_an_id_are_one_event_within_some_minutes(
    redis: Redis, engine: Engine, deploys: str
) -> None:
    first = event(deploys)
    again = [event(deploys, at=NOW + minutes * MINUTE) for minutes in (1, 5, 9)]
    later = event(deploys, at=NOW + WINDOW)
    assert push(redis, first, *again, later) == ["accepted", "duplicate", "duplicate", "duplicate", "accepted"]
    drain(redis, engine)
    assert stored(engine, deploys) == [1, 1]


def test_postgres_recognizes_repeats_when_redis_has_lost_them(redis: Redis, engine: Engine, deploys: str) -> None:
    moments = [NOW, NOW + WINDOW - MINUTE, NOW + WINDOW, NOW + WINDOW + MINUTE, NOW + 2 * WINDOW]
    for at in moments:
        item = event(deploys, at=at)
        redis.delete(dedup_key(item.source, item.delivery_id))
        drain(redis, engine, item)
    assert stored(engine, deploys) == [1, 1, 1]
    found = deliveries(engine, deploys)
    assert len(found) == 3
    assert set(found.values()) == {"applied"}
    assert event(deploys).delivery_id in found


def test_events_applied_before_a_worker_died_are_not_applied_again(redis: Redis, engine: Engine, deploys: str) -> None:
    push(redis, event(deploys), event(deploys, at=NOW + WINDOW), event(deploys, at=NOW + 2 * WINDOW))
    with engine.begin() as connection:
        waiting = read_entries(redis, [shard_of(deploys)]).entries
        SessionManager(PostgresStore(connection)).apply([item.entry for item in waiting])
    assert drain(redis, engine)[shard_of(deploys)].endswith(": 3 duplicate")
    assert stored(engine, deploys) == [1, 1, 1]
    assert redis.xlen(inbox_key(shard_of(deploys))) == 0


def test_the_id_of_a_sender_decides_at_any_time_and_for_any_body(redis: Redis, engine: Engine, deploys: str) -> None:
    drain(redis, engine, event(deploys, sender_id="one"), event(deploys, sender_id="two"))
    assert stored(engine, deploys) == [1, 1]
    again = event(deploys, sender_id="one", at=NOW + 100 * WINDOW)
    redis.delete(dedup_key(again.source, again.delivery_id))
    assert drain(redis, engine, again)[0].endswith(": 1 duplicate")
    other = event(deploys, b"{}", sender_id="one")
    assert push(redis, other) == ["conflict"]


def test_an_event_that_differs_in_any_field_is_another(redis: Redis, engine: Engine, deploys: str) -> None:
    railway = {"type": "Deploy", "timestamp": "2026-11-26T10:00:00Z", "deployment": {"id": "d"}, "status": "FAILED"}
    bodies = [msgspec.json.encode(railway | more) for more in ({}, {"status": "SUCCESS"}, {"attempt": 2})]
    bodies += [b'{"a":1.00000000000000000001}', b'{"a":1.0}', b'{"a":1,"a":2}', b'{"a":2}']
    drain(redis, engine, *(event(deploys, body) for body in bodies))
    assert stored(engine, deploys) == [1] * len(bodies)


def test_events_with_a_common_prefix_have_different_keys() -> None:
    """The first eight hex digits of their hashes are the same."""
    bodies = (b'{"n": 7335}', b'{"n": 13654}')
    first, second = (msgspec.json.decode(event("s", body).data)["key"] for body in bodies)
    assert first != second
    assert all(f"-{NOW:%Y%m%dT%H%M%SZ}-" in key for key in (first, second))


def test_parked_events_with_equal_bodies_are_replayed_one_by_one(redis: Redis, engine: Engine, deploys: str) -> None:
    drain(redis, engine, entry("pause_session", deploys), event(deploys), event(deploys, at=NOW + WINDOW))
    assert sorted(deliveries(engine, deploys).values()) == ["parked", "parked"]
    drain(redis, engine, entry("resume_session", deploys))
    resolution = DeadLetterResolution(by="ops", at=NOW)
    for _ in range(2):
        with engine.connect() as connection:
            wanted = DeadLetterFilter(status="parked", session_id=deploys)
            found, _ = entries_to_rule(connection, wanted, resolution, limit=10)
        drain(redis, engine, *found)
    assert stored(engine, deploys) == [1, 1]
    assert sorted(deliveries(engine, deploys).values()) == ["applied", "applied"]
