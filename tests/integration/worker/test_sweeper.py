"""The sweeper after crashes and under load: it continues, and gives each duty its turn."""

from __future__ import annotations

import io
import logging
import secrets
from collections.abc import Iterator

import pytest
from redis import Redis
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from sqlalchemy import Engine, text

from models.process.log_output import TurnHandler
from models.queue.job_queue import DRAIN, QUEUE, SWEEPER_KEY, open_queue
from models.settings import Settings
from sessions.postgres.connections import create_engine
from tests.support.ports import free_port
from tests.support.processes.stack import wait_for
from tests.support.stores.inbox import drain, entry
from worker import retention
from worker.sweeper import Sweeper


@pytest.fixture
def task(redis: Redis, engine: Engine) -> str:
    """The session of a task `t` whose lease has expired."""
    session_id = f"lease-{secrets.token_hex(6)}"
    drain(redis, engine, entry("create_session", session_id, title="Lease"))
    drain(redis, engine, entry("delegate_task", session_id, task_id="t", description="wait"))
    with engine.begin() as connection:
        connection.execute(
            text("""
            UPDATE tasks SET status = 'running', attempt = 1, lease_expires_at = now() - interval '1 minute'
            WHERE session_id = :id
            """),
            {"id": session_id},
        )
    return session_id


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The log as a process writes it."""
    handler = TurnHandler(stream := io.StringIO())
    logging.getLogger().addHandler(handler)
    yield stream
    logging.getLogger().removeHandler(handler)


def leading(redis: Redis, engine: Engine) -> Sweeper:
    """A sweeper that is the leader, whatever else runs on this Redis."""
    sweeper = Sweeper(redis, engine, retention_days=30)
    redis.set(SWEEPER_KEY, sweeper.name)
    return sweeper


def leave_abandoned_drain(redis: Redis, *, is_gone: bool = False) -> str:
    """Leave a drain of a killed worker, which RQ then fails: its execution has expired."""
    queue = open_queue(redis)
    job = Job.create(
        DRAIN, args=[3], connection=redis, origin=QUEUE, status=JobStatus.FAILED, serializer=JSONSerializer
    )
    job.save()
    with redis.pipeline() as pipeline:
        execution = Execution.create(job, 60, pipeline, worker_name="killed")
        queue.failed_job_registry.add(job, ttl=60, pipeline=pipeline)
        pipeline.execute()
    redis.delete(execution.key)
    if is_gone:
        redis.delete(job.key)
    return str(job.id)


def status_of(engine: Engine, session_id: str) -> str:
    with engine.connect() as connection:
        return str(connection.scalar(text("SELECT status FROM tasks WHERE session_id = :id"), {"id": session_id}))


@pytest.mark.parametrize("is_gone", [False, True])
def test_jobs_of_killed_workers_leave_the_failed_list_and_leases_are_requeued(
    redis: Redis, engine: Engine, task: str, is_gone: bool
) -> None:
    abandoned = [leave_abandoned_drain(redis, is_gone=is_gone) for _ in range(3)]
    leading(redis, engine).sweep()
    # The list also shows dead letters of other tests.
    assert not set(abandoned) & set(open_queue(redis).failed_job_registry.get_job_ids(cleanup=False))
    assert not any(redis.keys(f"rq:*{job_id}*") for job_id in abandoned)
    assert status_of(engine, task) == "pending"


def test_a_failing_duty_does_not_block_the_others(redis: Redis, engine: Engine, task: str, log: io.StringIO) -> None:
    redis.sadd("rq:failed:session-relay", "not the sorted set that RQ makes")
    sweeper = leading(redis, engine)
    for _ in range(3):
        sweeper.sweep()
    assert status_of(engine, task) == "pending"
    assert [line for line in log.getvalue().splitlines() if "failed list" in line] == [
        "The sweeper could not update the failed list; it retries each second. WRONGTYPE"
    ]


def test_a_cause_is_logged_once_even_if_some_duties_are_not_due(redis: Redis, log: io.StringIO) -> None:
    nowhere = Settings(database_url=f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    sweeper = leading(redis, create_engine(nowhere, application_name="tests", pool_size=1))
    for _ in range(3):
        sweeper.sweep()
    [logged] = [line for line in log.getvalue().splitlines() if "Start Postgres" in line]
    assert "requeue expired leases, fail tasks whose dependency failed, " in logged


def test_pruning_many_rows_does_not_block_the_other_duties(
    redis: Redis, engine: Engine, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PRUNED_AT_ONCE", 1_000)
    monkeypatch.setattr(retention, "PRUNE_SECONDS", 0.0)
    source = f"old-{secrets.token_hex(4)}"
    with engine.begin() as connection:
        connection.execute(
            text("""
            INSERT INTO deliveries (source, delivery_id, hash, status, http_status, command, accepted_at, decided_at)
            SELECT :source, n::text, '', 'applied', 200, '', now() - interval '40 days', now() - interval '40 days'
            FROM generate_series(1, 10000) n
            """),
            {"source": source},
        )
    sweeper = leading(redis, engine)
    left = []
    for _ in range(11):
        sweeper.sweep()
        with engine.connect() as connection:
            count = text("SELECT count(*) FROM deliveries WHERE source = :source")
            left.append(connection.scalar(count, {"source": source}))
        assert redis.get(SWEEPER_KEY) == sweeper.name.encode()
    assert left == [9_000 - 1_000 * turn for turn in range(10)] + [0]
    assert status_of(engine, task) == "pending"


def test_texts_that_an_earlier_version_stored_are_split_for_the_search(
    redis: Redis, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    session_id = f"old-{secrets.token_hex(4)}"
    drain(redis, engine, entry("create_session", session_id, title="Old"))
    drain(redis, engine, entry("store_memory", session_id, key="m", content="solar roof"))
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM passages WHERE session_id = :id"), {"id": session_id})
    sweeper = leading(redis, engine)

    def is_split() -> bool:
        sweeper.sweep()
        with engine.connect() as connection:
            found = connection.execute(
                text("SELECT area FROM passages WHERE session_id = :id ORDER BY area"), {"id": session_id}
            )
            return list(found.scalars()) == ["memories", "sessions"] and "for the search" in caplog.text

    wait_for(is_split, what="texts split")
