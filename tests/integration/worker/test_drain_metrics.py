"""The counts of workers: each delivery by its result, and the time that it took to apply."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from redis import Redis
from sqlalchemy import Engine, text

from models.queue.inbox import DeadLetterResolution
from models.queue.metrics import COUNTS_KEY, DECIDED, LEASES_EXPIRED, MILLIONTHS
from tests.support.metrics import stored_counts as counts
from tests.support.stores.inbox import drain, entry
from worker import drain as draining
from worker.inbox import acknowledge
from worker.sweeper import return_leases


def test_each_delivery_is_counted_by_its_result(redis: Redis, engine: Engine, walk: str) -> None:
    before = counts(redis)
    stored = [entry("store_memory", walk, key=f"k{n}", content=n) for n in range(5)]
    drain(redis, engine, *stored, entry("retrieve_memory", walk, key="none"))
    drain(redis, engine, msgspec.structs.replace(stored[0], resolution=_replay()))
    found = counts(redis)
    decided = {
        status: found.get(DECIDED.field(status), 0) - before.get(DECIDED.field(status), 0) for status in DECIDED.values
    }
    assert decided == {
        "applied": 5,
        "rejected": 1,
        "parked": 0,
        "failed": 0,
        "ignored": 0,
        "duplicate": 1,
        "conflict": 0,
    }
    assert found["drain_entries:10"] == 1
    assert sum(found[field] for field in found if field.startswith("drain_entries:") and "sum" not in field) == 3
    assert sum(found[field] for field in found if field.startswith("apply_seconds:") and "sum" not in field) == 7


def _replay() -> DeadLetterResolution:
    """Makes the relay push an entry again that it knows."""
    return DeadLetterResolution(by="tests", at=datetime.now(UTC))


def test_the_time_to_apply_runs_from_the_acceptance(redis: Redis, engine: Engine, walk: str) -> None:
    redis.delete(COUNTS_KEY)
    made = entry("store_memory", walk, key="k", content=1)
    accepted = datetime.now(UTC) - timedelta(seconds=100)
    ahead = datetime.now(UTC) + timedelta(seconds=100)
    items = [
        msgspec.structs.replace(made, delivery_id=name, accepted_at=at) for name, at in (("a", accepted), ("b", ahead))
    ]
    drain(redis, engine, *items)
    found = counts(redis)
    assert (found["apply_seconds:300"], found["apply_seconds:0.001"]) == (1, 1)
    assert 100 <= found["apply_seconds:sum"] / MILLIONTHS < 130


def test_a_drain_that_is_killed_before_it_acknowledges_counts_nothing_twice(
    redis: Redis, engine: Engine, walk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis.delete(COUNTS_KEY)
    monkeypatch.setattr(draining, "acknowledge", lambda *_, **__: set())
    drain(redis, engine, entry("store_memory", walk, key="k", content=1))
    assert counts(redis) == {}
    monkeypatch.setattr(draining, "acknowledge", acknowledge)
    drain(redis, engine)
    found = counts(redis)
    assert found[DECIDED.field("duplicate")] == 1
    assert DECIDED.field("applied") not in found


def test_a_task_whose_lease_expired_is_counted_once(redis: Redis, engine: Engine, walk: str) -> None:
    drain(redis, engine, entry("delegate_task", walk, description="Look it up", task_id="t"))
    claimed = (
        "UPDATE tasks SET status = 'claimed', claimed_by = 'claude_code', attempt = 1,"
        " lease_expires_at = now() - interval '1 second' WHERE session_id = :walk"
    )
    others = "UPDATE tasks SET lease_expires_at = now() + interval '1 hour' WHERE lease_expires_at IS NOT NULL"
    with engine.begin() as connection:
        connection.execute(text(others))  # Other tests may have left leases that have expired, or are about to.
        connection.execute(text(claimed), {"walk": walk})
    return_leases(redis, engine)
    return_leases(redis, engine)
    assert counts(redis)[LEASES_EXPIRED.name] == 1
