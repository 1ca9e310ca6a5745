"""Claims beside commands on the same tasks, and the cost of finding the next task."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from redis import Redis
from sqlalchemy import Connection, Engine, event, text

from models.access.api_keys import hash_key
from models.queue.task_notifications import ClaimToken
from sessions.postgres.commands.store import PostgresStore
from sessions.postgres.tasks import dependent_tasks
from sessions.postgres.tasks.claims import ClaimCriteria, ClaimedTask, claim
from sessions.postgres.tasks.dependent_tasks import fail_dependents
from sessions.postgres.tasks.leases import extend, fail_stuck, holds_task, release, requeue_expired
from sessions.rules.dispatch import ReadSet
from sessions.rules.records import Task, task_key
from sessions.rules.state import Changes
from tests.support.processes.stack import new_id, wait_for
from tests.support.project import IS_LONG
from tests.support.stores.inbox import drain, entry
from tests.support.stores.rows import Rows

RACED_FOR = 60 if IS_LONG else 25
"""Tasks for which claims and commands race."""
FAILED_AT_ONCE = 30
"""Dependents of a statement in these tests."""


@pytest.fixture
def session_id(redis: Redis, engine: Engine) -> Iterator[str]:
    """A session that is deleted after the test."""
    session_id = new_id("claims")
    drain(redis, engine, entry("create_session", session_id, title="Claims"))
    yield session_id
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM sessions WHERE session_id = :id"), {"id": session_id})


def wanted(agent_name: str, **fields: Any) -> ClaimCriteria:
    given: dict[str, Any] = {"worker": "w", "lease_seconds": 60, "source": "tests", "task_types": ("none-of-them",)}
    return ClaimCriteria(agent_name=agent_name, **given | fields)


def allow(engine: Engine, agent_name: str, most: int) -> None:
    columns = "name, type, max_concurrent, capabilities, registered_at"
    statement = f"INSERT INTO agents ({columns}) VALUES (:name, 't', :most, '{{}}', now())"
    with engine.begin() as connection:
        connection.execute(text(statement), {"name": agent_name, "most": most})


def row_of(engine: Engine, session_id: str, task_id: str) -> Any:
    with engine.connect() as connection:
        found = text("SELECT * FROM tasks WHERE session_id = :s AND task_id = :t")
        return connection.execute(found, {"s": session_id, "t": task_id}).one()


def take(engine: Engine, what: ClaimCriteria) -> ClaimToken | None:
    with engine.begin() as connection:
        found = claim(connection, what)
    if not isinstance(found, ClaimedTask):
        return None
    return ClaimToken(session_id=found.session_id, task_id=found.task["task_id"], hash=hash_key(found.secret))


def waits_for_a_lock(engine: Engine) -> bool:
    with engine.connect() as connection:
        waiting = text(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return bool(connection.scalar(waiting))


class TestLostUpdates:
    def test_a_heartbeat_waits_for_a_command_on_its_task_and_keeps_its_changes(
        self, redis: Redis, engine: Engine, session_id: str
    ) -> None:
        agent = new_id("agent")
        drain(redis, engine, entry("delegate_task", session_id, task_id="t", description="d", agent_name=agent))
        held = take(engine, wanted(agent))
        assert held is not None
        key = task_key(session_id, "t")
        with ThreadPoolExecutor(1) as pool:
            with engine.begin() as connection:
                store = PostgresStore(connection)
                task = store.load(ReadSet(keys={key}, held={key})).find(key, Task)
                assert task is not None
                beating = pool.submit(beat, engine, held)
                wait_for(lambda: waits_for_a_lock(engine), what="waiting")
                cancelled = msgspec.structs.replace(
                    task, status="cancelled", lease_expires_at=None, finished_at=task.updated_at
                )
                store.write(Changes(put={key: cancelled}), [], [])
            assert beating.result(timeout=5) == "cancelled"
        row = row_of(engine, session_id, "t")
        assert (row.status, row.lease_expires_at, row.claim_token) == ("cancelled", None, held.hash)

    def test_a_command_sees_the_claim_that_was_made_while_it_waited(
        self, redis: Redis, engine: Engine, session_id: str
    ) -> None:
        agent = new_id("agent")
        drain(redis, engine, entry("delegate_task", session_id, task_id="t", description="d", agent_name=agent))
        with ThreadPoolExecutor(1) as pool:
            with engine.begin() as connection:
                assert isinstance(claim(connection, wanted(agent)), ClaimedTask)
                draining = pool.submit(drain, redis, engine, entry("cancel_task", session_id, task_id="t"))
                wait_for(lambda: waits_for_a_lock(engine), what="waiting")
            assert "1 applied" in draining.result(timeout=10)[0]
        row = row_of(engine, session_id, "t")
        assert (row.status, row.attempt, row.claimed_by) == ("cancelled", 1, agent)
        assert row.claim_token is not None

    def test_racing_claims_heartbeats_and_commands_overwrite_nothing(
        self, redis: Redis, engine: Engine, session_id: str
    ) -> None:
        agent = new_id("agent")
        allow(engine, agent, 1_000)
        ids = [f"t{number}" for number in range(RACED_FOR)]
        delegated = [
            entry("delegate_task", session_id, task_id=name, description=name, agent_name=agent) for name in ids
        ]
        drain(redis, engine, *delegated)
        grants: list[ClaimToken] = []
        released: dict[str, int] = dict.fromkeys(ids, 0)
        is_over = threading.Event()

        def work() -> None:
            while not is_over.is_set():
                held = take(engine, wanted(agent))
                if held is None:
                    continue
                grants.append(held)
                if beat(engine, held) != "cancelled" and len(grants) % 3 == 0:
                    with engine.begin() as connection:
                        lease, _ = release(connection, held, source="tests")
                    released[held.task_id] += lease.status == "pending"

        with ThreadPoolExecutor(3) as pool:
            working = [pool.submit(work) for _ in range(3)]
            for name in ids:
                told = drain(redis, engine, entry("cancel_task", session_id, task_id=name))
                assert "1 applied" in told[0]
            is_over.set()
            for done in working:
                done.result(timeout=20)
        for name in ids:
            row = row_of(engine, session_id, name)
            claimed = sum(grant.task_id == name for grant in grants)
            assert (row.status, row.lease_expires_at) == ("cancelled", None)
            assert row.attempt == claimed - released[name], name
            assert (row.claim_token is not None) == (claimed > released[name]), name

    def test_deleting_a_session_does_not_deadlock_with_claims(
        self, redis: Redis, engine: Engine, session_id: str
    ) -> None:
        agent = new_id("agent")
        allow(engine, agent, 1_000)
        names = [f"{session_id}-{number}" for number in range(8)]
        for name in names:
            drain(redis, engine, entry("create_session", name, title=name))
            tasks = [
                {
                    "command": "delegate_task",
                    "data": {"task_id": f"t{number}", "description": f"{number}", "agent_name": agent},
                }
                for number in range(20)
            ]
            drain(redis, engine, entry("batch", name, commands=tasks))
        is_over = threading.Event()
        wrong: list[BaseException] = []

        def work() -> None:
            while not is_over.is_set():
                try:
                    if (held := take(engine, wanted(agent))) is None:
                        continue
                    with engine.begin() as connection:
                        release(connection, held, source="tests")
                except Exception as error:
                    if getattr(error, "code", "") != "claim_lost":
                        wrong.append(error)

        with ThreadPoolExecutor(3) as pool:
            for _ in range(3):
                pool.submit(work)
            for name in names:
                told = drain(redis, engine, entry("delete_session", name, confirm=name))
                assert "1 applied" in told[0]
            is_over.set()
        assert wrong == []


def beat(engine: Engine, held: ClaimToken) -> str:
    with engine.begin() as connection:
        return extend(connection, held, progress=b'{"percent":1}').status


@pytest.fixture
def alone(connection: Connection) -> Connection:
    """A transaction that sees no tasks of other tests."""
    connection.execute(text("DELETE FROM tasks"))
    return connection


class TestLeases:
    def test_expired_leases_are_requeued_with_a_notification_and_an_event(self, alone: Connection) -> None:
        connection, rows = alone, Rows(alone, new_id("leases"))
        rows.task("again", status="claimed", attempt=1, claimed_by="a", agent_name="a")
        rows.task("over", status="running", attempt=3, claimed_by="b")
        news, sessions = requeue_expired(connection)
        assert sessions == {rows.session_id}
        assert [task.agent_name for task in news.claimable] == ["a"]
        assert (sorted(news.freed), news.settled) == (["a", "b"], [(rows.session_id, "over")])
        told = text("SELECT event, source, message FROM events WHERE session_id = :id ORDER BY message")
        journal = connection.execute(told, {"id": rows.session_id}).all()
        assert [(row.event, row.source) for row in journal] == [("return_task", "sweeper")] * 2
        assert "returned to the queue" in journal[0].message
        assert "last attempt" in journal[1].message
        assert requeue_expired(connection)[1] == set()

    def test_dependents_of_lost_and_cancelled_tasks_fail(self, alone: Connection) -> None:
        connection, rows = alone, Rows(alone, new_id("vain"))
        rows.task("lost", "Bake", status="running", attempt=3, claimed_by="b")
        rows.task("next", "Slice", depends_on=["lost"])
        rows.task("last", "Eat", depends_on=["next"])
        rows.task("gone", "Fly", status="cancelled")
        rows.task("stuck", "Land", depends_on=["gone"])
        rows.task("stuck-too", "Rest", depends_on=["stuck", "lost"])
        rows.task("waits", "Wait", depends_on=["other"])
        rows.task("other", "Do other")
        news, _ = requeue_expired(connection)
        assert {task_id for _, task_id in news.settled} == {"lost", "next", "last", "stuck-too"}
        news, sessions = fail_stuck(connection)
        assert (news.settled, sessions) == ([(rows.session_id, "stuck")], {rows.session_id})
        found = text("SELECT task_id, status, error FROM tasks WHERE session_id = :id")
        tasks = {row.task_id: row for row in connection.execute(found, {"id": rows.session_id})}
        assert tasks["stuck"].error == 'It depends on "Fly", which was cancelled.'
        assert tasks["last"].error == 'It depends on "Slice", which failed.'
        assert (tasks["waits"].status, tasks["other"].status) == ("pending", "pending")
        assert fail_stuck(connection)[0].settled == []
        events = connection.execute(text("SELECT message FROM events WHERE session_id = :id"), {"id": rows.session_id})
        assert '"Land" failed. It depends on "Fly", which was cancelled.' in events.scalars().all()

    def test_long_chains_and_many_dependents_fail_at_once(
        self, connection: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dependent_tasks, "FAILED_AT_ONCE", FAILED_AT_ONCE)
        rows = Rows(connection, new_id("chain"))
        rows.task("t0", status="cancelled")
        for number in range(1, 40):
            rows.task(f"t{number}", depends_on=[f"t{number - 1}"])
        for number in range(FAILED_AT_ONCE + 5):
            rows.task(f"w{number}", depends_on=["t0"])
        failed = fail_dependents(connection, {(rows.session_id, "t0")})
        assert len(failed) == 39 + FAILED_AT_ONCE + 5

    def test_a_task_is_held_by_the_key_that_claimed_it(self, connection: Connection) -> None:
        rows = Rows(connection, new_id("leases"))
        rows.task("t", agent_name="a")
        assert not holds_task(connection, "tests", rows.session_id)
        assert isinstance(claim(connection, wanted("a")), ClaimedTask)
        assert holds_task(connection, "tests", rows.session_id)
        assert not holds_task(connection, "others", rows.session_id)


class TestCost:
    def test_the_next_task_among_many_is_found_by_index(self, connection: Connection) -> None:
        """The figures for a million tasks are in bench/claims.py."""
        fill(connection, new_id("many"), tasks=20_000, pending=1_000)
        for kind in ("code", "general"):
            savepoint = connection.begin_nested()
            plans = plans_of(connection, lambda: claim(connection, wanted("busy", task_types=(kind,))))  # noqa: B023
            savepoint.rollback()
            scans = [line for plan in plans for line in plan if "on tasks" in line]
            assert scans
            assert all("Seq Scan" not in line for line in scans), scans
            assert any("ix_tasks_claimable" in line for line in scans), scans


def fill(connection: Connection, session_id: str, *, tasks: int, pending: int) -> None:
    """Insert many finished tasks, and some pending ones between them."""
    Rows(connection, session_id)
    connection.execute(
        text(
            """
            INSERT INTO tasks (session_id, task_id, agent_name, task_type, description, description_hash, priority,
                input_data, depends_on, max_attempts, attempt, status, questions, created_by, created_at, updated_at,
                finished_at)
            SELECT :session_id, 't' || n, CASE WHEN n % 2 = 0 THEN 'busy' END, CASE WHEN n % 3 = 0 THEN 'code'
                ELSE 'general' END, 'do ' || n, md5(n::text), n % 7, '{}', '{}', 3, 0,
                CASE WHEN n % :every = 0 THEN 'pending' ELSE 'completed' END, '[]', 'tests', now(), now(),
                CASE WHEN n % :every = 0 THEN NULL ELSE now() END
            FROM generate_series(1, :tasks) n
            """
        ),
        {"session_id": session_id, "tasks": tasks, "every": tasks // pending},
    )
    connection.execute(text("ANALYZE tasks"))


def plans_of(connection: Connection, work: Callable[[], object]) -> list[list[str]]:
    """Return the plans of all queries on tasks within `work`."""
    plans: list[list[str]] = []

    def explain(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if "tasks" in statement and not statement.startswith("INSERT"):
            cursor.execute(f"EXPLAIN {statement}", parameters)
            plans.append([row[0] for row in cursor.fetchall()])

    event.listen(connection, "before_cursor_execute", explain)
    try:
        work()
    finally:
        event.remove(connection, "before_cursor_execute", explain)
    return plans
