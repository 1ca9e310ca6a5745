"""The cost of a drain: round trips to Postgres and commands to Redis, however many entries and kinds of changes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from redis.client import Pipeline
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import now as rq_now
from rq.worker import WorkerStatus
from sqlalchemy import Engine, event, text

from models.queue.inbox import drain_pending_key, inbox_key, shard_of
from models.queue.job_queue import QUEUE, enqueue_drains, open_queue
from sessions.postgres.commands import loading
from sessions.postgres.operations import deliveries
from sessions.postgres.tasks import task_updates
from tests.support.stores.effects import memories
from tests.support.stores.inbox import drain, entry, push
from worker import jobs
from worker.drain import Drain
from worker.inbox import acknowledge, read_entries
from worker.worker_process import AllowedJobsWorker

KEPT_BY_RQ = ("rq:job:*", "rq:execution*", "rq:results:*", f"rq:wip:{QUEUE}*", "rq:queue:*")


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """The statements that the engine sends within the block, and a word for each transaction that it begins."""
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    def begin(connection: Any) -> None:
        sent.append("BEGIN")

    event.listen(engine, "before_cursor_execute", note)
    event.listen(engine, "begin", begin)
    yield sent
    event.remove(engine, "before_cursor_execute", note)
    event.remove(engine, "begin", begin)


@pytest.mark.parametrize("number", [1, 100])
def test_a_drain_takes_one_transaction_and_few_round_trips(
    redis: Redis, engine: Engine, walk: str, number: int
) -> None:
    push(redis, *(entry("store_memory", walk, key=f"k{n}", content=n) for n in range(number)))
    with statements(engine) as sent:
        assert Drain(redis, engine).run([shard_of(walk)]).endswith(f": {number} applied")
    assert len(memories(engine, walk)) == number
    assert sent.count("BEGIN") == 1
    # Time limits, shard lock, savepoint, deliveries, sessions, memories; all writes; the end of the savepoint.
    assert len(sent) - 1 == 8, sent


def test_writes_of_all_kinds_share_a_round_trip(redis: Redis, engine: Engine, walk: str) -> None:
    changes = [
        entry("store_memory", walk, key="k", content="a"),
        entry("conversation_chunk", walk, content="We'd say 100 % of it; all of it."),
        entry("add_artifact", walk, name="a", content="x"),
        entry("delegate_task", walk, description="do it"),
    ]
    with statements(engine) as sent:
        drain(redis, engine, *changes)
    assert [statement.count("INSERT INTO ") for statement in sent if "INSERT INTO " in statement] == [9]


def test_a_drain_goes_on_while_entries_are_left_and_ends_with_the_last(redis: Redis, walk: str) -> None:
    shard = shard_of(walk)
    push(redis, *(entry("store_memory", walk, key=f"k{n}", content=n) for n in range(3)))
    waiting = read_entries(redis, [shard]).entries
    assert not acknowledge(redis, [shard], waiting[:2], [])
    assert redis.exists(drain_pending_key(shard))
    assert acknowledge(redis, [shard], waiting[2:], [])
    assert not redis.exists(drain_pending_key(shard))
    assert redis.xlen(inbox_key(shard)) == 0


def test_deliveries_and_records_are_found_by_their_keys_in_a_table_of_any_size(engine: Engine) -> None:
    """Asked for many keys at once, the planner would read all of a table that is not very large."""
    ids = [f"cost-{n}" for n in range(500)]
    known = {"sources": ["cost"] * 500, "ids": ids, "waits": [False] * 500}
    for statement, values in (
        (deliveries._select_known(), known),
        (loading._select("memories", locked=False), {"k0": ["cost"] * 500, "k1": ids}),
    ):
        compiled = statement.compile(engine)
        with engine.connect() as connection:
            connection.execute(text(FILL_SESSIONS))
            connection.execute(text(FILL_DELIVERIES))
            connection.execute(text(FILL_MEMORIES))
            plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {compiled}", compiled.params | values).scalars())
            connection.rollback()
        assert "Index Scan" in plan, plan
        assert "Seq Scan" not in plan, plan


def test_whether_there_are_tasks_is_found_by_keys_in_a_table_of_any_size(engine: Engine) -> None:
    """Nearly all tasks are of one session and one source, which has seen them: the planner expects to find one at
    once, wherever it begins to read."""
    compiled = task_updates._select_whether_there_are_tasks().compile(engine)
    values = {"sessions": ["cost", "other"], "sources": ["cost"], "since": datetime.now(UTC) - timedelta(days=1)}
    with engine.connect() as connection:
        connection.execute(text(FILL_SESSIONS))
        connection.execute(text(FILL_TASKS))
        connection.execute(text("ANALYZE tasks"))
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {compiled}", compiled.params | values).scalars())
        found = connection.exec_driver_sql(str(compiled), compiled.params | values).one()
        connection.rollback()
    assert tuple(found) == (True, False)
    assert plan.count(" using ") == 2, plan
    assert "Seq Scan" not in plan, plan


FILL_SESSIONS = """
INSERT INTO sessions VALUES ('cost', '', '{}', '', 'active', 'cost', now(), now(), NULL)
"""
FILL_DELIVERIES = """
INSERT INTO deliveries (source, delivery_id, hash, status, command, accepted_at, decided_at, http_status)
SELECT 'cost', 'cost-' || n, '', 'applied', '', now(), now(), 200 FROM generate_series(1, 5000) AS n
"""
FILL_TASKS = """
INSERT INTO tasks (session_id, task_id, description, description_hash, task_type, priority, input_data, depends_on,
    max_attempts, attempt, status, questions, created_by, created_at, updated_at, finished_at, shown_at, seen_by)
SELECT 'cost', 'cost-' || n, repeat('Do it. ', 40), '', 'general', 0, '{}', '{}', 3, 1, 'completed', '[]', 'cost',
    now(), now(), now(), now(), '{cost}'
FROM generate_series(1, 5000) AS n
"""
FILL_MEMORIES = """
INSERT INTO memories (session_id, key, revision, type, content, tags, status, created_by, created_at, updated_at)
SELECT 'cost', 'cost-' || n, 1, 'note', '1', '{}', 'open', '', now(), now() FROM generate_series(1, 5000) AS n
"""


def test_rq_keeps_few_records_of_a_drain_and_none_of_them_afterwards(
    own_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = 40
    run: Counter[int] = Counter()
    monkeypatch.setattr(jobs, "drain", lambda *shards: run.update(shards))
    monkeypatch.setattr(logging.getLogger("rq.worker"), "disabled", True)
    worker = AllowedJobsWorker([QUEUE], connection=own_redis, serializer=JSONSerializer, log_job_description=False)
    monkeypatch.setattr(worker, "_install_signal_handlers", lambda: None)
    enqueue_drains(open_queue(own_redis), [3] * number, together=False)
    before = own_redis.info("stats")["total_commands_processed"]
    worker.work(burst=True, logging_level="WARNING")
    commands = own_redis.info("stats")["total_commands_processed"] - before
    assert run == {3: number}
    assert commands / number < 50
    assert own_redis.hget(worker.key, "successful_job_count") == str(number).encode()
    assert worker.get_state() == WorkerStatus.IDLE
    assert [key for pattern in KEPT_BY_RQ for key in own_redis.scan_iter(pattern)] == []


class StoppedWorker(AllowedJobsWorker):
    """A worker that is asked to stop at the very moment at which RQ has recorded that a drain succeeded."""

    def cleanup_execution(self, job: Job, pipeline: Pipeline, execution: Execution | None = None) -> None:
        super().cleanup_execution(job, pipeline, execution)
        execute = pipeline.execute

        def execute_and_stop(raise_on_error: bool = True) -> list[Any]:
            answers: list[Any] = execute(raise_on_error)
            self._shutdown_requested_date = rq_now()
            self._shutdown()  # type: ignore[no-untyped-call]
            return answers

        pipeline.execute = execute_and_stop  # type: ignore[method-assign]


def test_a_worker_that_is_asked_to_stop_after_a_drain_stops_and_lists_no_failed_job(
    own_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "drain", lambda *shards: None)
    monkeypatch.setattr(logging.getLogger("rq.worker"), "disabled", True)
    worker = StoppedWorker([QUEUE], connection=own_redis, serializer=JSONSerializer, log_job_description=False)
    monkeypatch.setattr(worker, "_install_signal_handlers", lambda: None)
    queue = open_queue(own_redis)
    enqueue_drains(queue, [3, 4, 5], together=False)
    worker.work(burst=True, logging_level="WARNING")
    assert queue.failed_job_registry.get_job_ids() == []
    assert queue.count == 2
