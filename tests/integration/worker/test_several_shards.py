"""A drain of several shards: one transaction for all of them, in which none can hold up the others for long."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from redis import Redis
from rq.job import Job
from sqlalchemy import Engine, text

from models.queue.inbox import SHARDS, Entry, drain_pending_key, inbox_key, shard_of
from models.queue.job_queue import enqueue_drains, open_queue
from models.settings import Settings
from sessions.postgres.connections import create_engine
from tests.support.stores.effects import memories, status_of
from tests.support.stores.inbox import drain, entry, push
from worker import drain as drains
from worker import inbox, jobs
from worker.drain import Drain
from worker.inbox import FIRST_STEP, read_entries, slow_key
from worker.sweeper import wake_forgotten

SHARD_LOCK = 7_305_002


@pytest.fixture
def walks(redis: Redis, engine: Engine, walk: str) -> list[str]:
    """A session in each of four shards."""
    names = (f"{walk}-{number}" for number in itertools.count())
    by_shard: dict[int, str] = {}
    while len(by_shard) < 4:
        name = next(names)
        by_shard.setdefault(shard_of(name), name)
    found = [by_shard[shard] for shard in sorted(by_shard)]
    drain(redis, engine, *(entry("create_session", name, title=name) for name in found))
    return found


def shards_of(walks: list[str]) -> list[int]:
    return [shard_of(walk) for walk in walks]


def store(walk: str, number: int = 0, **origin: Any) -> Entry:
    return entry("store_memory", walk, key=f"k{number}", content=number, **origin)


def queued(redis: Redis) -> list[Job]:
    return open_queue(redis).jobs


def test_several_shards_share_a_job_and_a_transaction(redis: Redis, engine: Engine, walks: list[str]) -> None:
    entries = [store(walk, number) for number in range(3) for walk in walks]
    push(redis, *entries)
    enqueue_drains(open_queue(redis), shards_of(walks))
    [job] = queued(redis)
    assert job.args == shards_of(walks)
    numbers = " ".join(f"{shard:02d}" for shard in shards_of(walks))
    assert job.description == f"drain shards {numbers}"
    assert Drain(redis, engine).run(job.args) == f"drain shards {numbers}: 12 applied"
    with engine.connect() as connection:
        statement = text("SELECT count(DISTINCT xmin::text) FROM deliveries WHERE delivery_id = ANY(:ids)")
        assert connection.scalar(statement, {"ids": [item.delivery_id for item in entries]}) == 1
    for walk in walks:
        assert memories(engine, walk) == {"k0": 1, "k1": 1, "k2": 1}
        assert not redis.exists(drain_pending_key(shard_of(walk)))
        assert redis.xlen(inbox_key(shard_of(walk))) == 0


def test_a_job_for_one_shard_still_runs(
    redis: Redis, settings: Settings, engine: Engine, walk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs of the previous version may be in the queue."""
    monkeypatch.setattr(jobs, "runtime", None)
    runtime = jobs.prepare(msgspec.structs.replace(settings))
    push(redis, store(walk))
    jobs.drain(shard_of(walk))
    assert memories(engine, walk) == {"k0": 1}
    runtime.engine.dispose()
    runtime.redis.close()


def test_each_shard_has_its_turn_and_the_oldest_entry_comes_first(redis: Redis, walks: list[str]) -> None:
    late, *early = walks
    push(redis, *(store(walk, number) for walk in early for number in range(200)))
    push(redis, store(late))
    read = [item.shard for item in read_entries(redis, shards_of(walks)).entries]
    assert read[0] != shard_of(late)
    assert shard_of(late) in read[: len(walks)]
    assert {read.count(shard_of(walk)) for walk in early} == {
        (inbox.MAX_ENTRIES - 1) // 3,
        (inbox.MAX_ENTRIES + 1) // 3,
    }


def test_many_large_entries_of_one_shard_leave_room_for_small_ones_of_others(
    redis: Redis, walks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "MAX_BYTES", 100_000)
    greedy, *others = walks
    push(redis, *(entry("store_memory", greedy, key=f"k{n}", content="x" * 30_000) for n in range(20)))
    push(redis, *(store(walk) for walk in others))
    read = [item.shard for item in read_entries(redis, shards_of(walks)).entries]
    assert set(read) == set(shards_of(walks))
    assert read.count(shard_of(greedy)) <= 3


def test_the_first_reply_holds_at_most_a_few_entries(redis: Redis, walks: list[str]) -> None:
    """Each may be a megabyte, and Redis holds the whole reply in memory."""
    push(redis, *(store(walk, number) for walk in walks for number in range(10)))
    rows, _ = inbox._read_first(redis, shards_of(walks), max(1, FIRST_STEP // len(walks)))
    assert [len(found) for found in rows.values()] == [1, 1, 1, 1]


def test_a_shard_locked_elsewhere_is_left_out(redis: Redis, engine: Engine, walks: list[str]) -> None:
    push(redis, *(store(walk) for walk in walks))
    with engine.begin() as connection:
        lock = {"class": SHARD_LOCK, "shard": shard_of(walks[0])}
        connection.execute(text("SELECT pg_advisory_xact_lock(:class, :shard)"), lock)
        assert Drain(redis, engine).run(shards_of(walks)).endswith("3 applied; busy elsewhere")
    assert [memories(engine, walk) for walk in walks] == [{}, {"k0": 1}, {"k0": 1}, {"k0": 1}]
    assert redis.exists(drain_pending_key(shard_of(walks[0])))


@pytest.mark.parametrize("limit", ["TOGETHER_ENTRIES", "TOGETHER_SECONDS"])
def test_after_much_work_each_shard_gets_a_job_of_its_own(
    redis: Redis, engine: Engine, walks: list[str], monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(drains, limit, 0)
    monkeypatch.setattr(inbox, "MAX_ENTRIES", 4)
    push(redis, *(store(walk, number) for walk in walks for number in range(2)))
    assert Drain(redis, engine).run(shards_of(walks)).endswith("4 applied; more to come")
    assert [job.args for job in queued(redis)] == [[shard] for shard in shards_of(walks)]
    assert all(redis.exists(drain_pending_key(shard)) for shard in shards_of(walks))
    for job in queued(redis):
        Drain(redis, engine).run(job.args)
    assert all(memories(engine, walk) == {"k0": 1, "k1": 1} for walk in walks)


def test_a_job_with_work_left_goes_behind_those_that_wait(
    redis: Redis, engine: Engine, walks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "MAX_ENTRIES", 4)
    push(redis, *(store(walk, number) for walk in walks for number in range(2)))
    enqueue_drains(open_queue(redis), [15])
    assert Drain(redis, engine).run(shards_of(walks)).endswith("4 applied; more to come")
    assert [job.args for job in queued(redis)] == [[15], shards_of(walks)]


def test_a_slow_entry_delays_only_its_own_shard(
    redis: Redis, engine: Engine, settings: Settings, walks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, *others = walks
    trigger = f"slow_{shard_of(slow)}_{slow[-6:].replace('-', '_')}"
    with engine.begin() as connection:
        connection.execute(
            text(f"""
            CREATE FUNCTION {trigger}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF new.session_id = '{slow}' THEN PERFORM pg_sleep(30); END IF;
                RETURN new;
            END $$;
            CREATE TRIGGER {trigger} BEFORE INSERT ON memories FOR EACH ROW EXECUTE FUNCTION {trigger}()
            """)
        )
    monkeypatch.setattr("sessions.postgres.connections.STATEMENT_TIMEOUT_SECONDS", 1)
    impatient = create_engine(settings, application_name="tests", pool_size=1)
    items = [store(walk) for walk in walks]
    push(redis, *items)
    one = Drain(redis, impatient)
    assert "Postgres unavailable, again in 0.5 s; more to come" in one.run(shards_of(walks))
    assert redis.get(slow_key(shard_of(slow))) == f"tests:{items[0].delivery_id}".encode()
    assert redis.pttl(drain_pending_key(shard_of(slow))) <= 500
    assert [job.args for job in queued(redis)] == [[shard] for shard in shards_of(others)]
    # The entry that took too long is tried again alone.
    assert {item.shard for item in read_entries(redis, shards_of(walks)).entries} == {shard_of(slow)}
    for _ in range(2):
        one.run(shards_of(walks))
    assert [status_of(engine, item) for item in items] == ["failed", "applied", "applied", "applied"]
    impatient.dispose()
    with engine.begin() as connection:
        connection.execute(text(f"DROP FUNCTION {trigger} CASCADE"))


def test_the_others_are_not_kept_waiting_by_the_retry_of_a_slow_entry(
    redis: Redis, engine: Engine, walks: list[str]
) -> None:
    slow, *others = walks
    push(redis, *(store(walk) for walk in walks))
    redis.set(slow_key(shard_of(slow)), "tests:applied-meanwhile")
    assert Drain(redis, engine).run(shards_of(walks)).endswith("1 applied; more to come")
    assert memories(engine, slow) == {"k0": 1}
    assert [job.args for job in queued(redis)] == [[shard] for shard in shards_of(others)]


def test_the_sweeper_enqueues_a_job_for_each_shard(redis: Redis, walks: list[str]) -> None:
    """A drain that breaks off each time would take those of the other shards with it."""
    push(redis, *(store(walk) for walk in walks))
    redis.delete(*(drain_pending_key(shard) for shard in shards_of(walks)))
    assert wake_forgotten(redis) == shards_of(walks)
    assert [job.args for job in queued(redis)] == [[shard] for shard in shards_of(walks)]


def test_while_postgres_is_away_all_shards_wait_as_long(redis: Redis, settings: Settings, walks: list[str]) -> None:
    nowhere = msgspec.structs.replace(settings, database_url="postgresql://nobody@127.0.0.1:1/none")
    engine = create_engine(nowhere, application_name="tests", pool_size=1)
    push(redis, *(store(walk) for walk in walks))
    assert Drain(redis, engine).run(shards_of(walks)).endswith("0 applied; Postgres unavailable, again in 0.5 s")
    assert all(0 < redis.pttl(drain_pending_key(shard)) <= 500 for shard in shards_of(walks))
    assert queued(redis) == []


@pytest.mark.parametrize(("number", "waiting_jobs", "pauses"), [(1, 0, 0), (8, 0, 1), (8, 1, 0), (120, 0, 0)])
def test_a_worker_lets_webhooks_gather_only_if_they_come_fast_and_nothing_else_waits(
    redis: Redis,
    engine: Engine,
    walk: str,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    waiting_jobs: int,
    pauses: int,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("worker.drain.time.sleep", slept.append)
    monkeypatch.setattr(drains, "PAUSE_SECONDS", 1_000.0)
    worker = Drain(redis, engine)
    push(redis, *(store(walk, n) for n in range(number)))
    worker.run([shard_of(walk)])
    enqueue_drains(open_queue(redis), range(waiting_jobs))
    push(redis, store(walk, 1_000))
    worker.run([shard_of(walk)])
    assert len(slept) == pauses
    assert "k1000" in memories(engine, walk)


@pytest.mark.parametrize("shards", [[], [SHARDS], [-1, 2]])
def test_a_job_with_other_shards_is_refused(redis: Redis, engine: Engine, shards: list[int]) -> None:
    with pytest.raises(ValueError, match="Invalid shards"):
        Drain(redis, engine).run(shards)
