"""Agents that only claim: few rows are kept however many names are made up, and delegating costs the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Connection, Engine, text

from sessions.postgres.commands.loading import load
from sessions.postgres.tasks.claims import ClaimCriteria, ClaimedTask, NoTask, claim
from sessions.postgres.tasks.leases import MOST_UNREGISTERED, forget_agents
from sessions.rules.dispatch import ReadSet, Recipient
from tests.support.processes.stack import new_id
from tests.support.stores.inbox import drain, entry
from worker.sweeper import forget_gone_agents


@pytest.fixture
def alone(engine: Engine, connection: Connection) -> Connection:
    """A transaction that sees no agents."""
    connection.execute(text("DELETE FROM agents"))
    return connection


@pytest.fixture
def session_id(redis: Redis, engine: Engine) -> Iterator[str]:
    """A session that is deleted after the test."""
    session_id = new_id("agents")
    drain(redis, engine, entry("create_session", session_id, title="Agents"))
    yield session_id
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM sessions WHERE session_id = :id"), {"id": session_id})


def add_agents(connection: Connection, prefix: str, count: int, **fields: Any) -> None:
    given = {"type": "general", "is_registered": False, "age": 0, **fields}
    connection.execute(
        text(
            "INSERT INTO agents (name, type, max_concurrent, capabilities, registered_at, is_registered, last_seen_at)"
            " SELECT :prefix || n, :type, 1, '{}', now(), :is_registered, now() - make_interval(secs => :age + n / 1e3)"
            " FROM generate_series(1, :count) n"
        ),
        {"prefix": prefix, "count": count, **given},
    )


def names(connection: Connection) -> list[str]:
    return list(connection.execute(text('SELECT name FROM agents ORDER BY name COLLATE "C"')).scalars())


def wanted(name: str) -> ClaimCriteria:
    return ClaimCriteria(agent_name=name, worker="w", lease_seconds=60, source="tests", task_types=("none-of-them",))


def test_only_the_latest_agents_that_only_claim_are_kept(alone: Connection) -> None:
    add_agents(alone, "made-up-", MOST_UNREGISTERED + 200)
    add_agents(alone, "registered-", 3, is_registered=True, age=1_000_000)
    assert forget_agents(alone) == 200
    kept = names(alone)
    assert len(kept) == MOST_UNREGISTERED + 3
    assert "made-up-1" in kept
    assert f"made-up-{MOST_UNREGISTERED + 1}" not in kept
    assert forget_agents(alone) == 0


def test_an_agent_that_only_claims_is_deleted_after_a_day_unless_it_holds_a_task(
    redis: Redis, engine: Engine, session_id: str
) -> None:
    busy, idle, registered = (new_id("agent") for _ in range(3))
    drain(redis, engine, entry("delegate_task", session_id, task_id="t", description="d", agent_name=busy))
    with engine.begin() as connection:
        assert isinstance(claim(connection, wanted(busy)), ClaimedTask)
        assert isinstance(claim(connection, wanted(idle)), NoTask)
        add_agents(connection, f"{registered}-", 1, is_registered=True)
    known = {busy, idle, f"{registered}-1"}
    assert known <= set(forgetting(engine))
    with engine.begin() as connection:
        aged = text("UPDATE agents SET last_seen_at = last_seen_at - interval '25 hours' WHERE name = ANY (:names)")
        connection.execute(aged, {"names": list(known)})
    assert known & set(forgetting(engine)) == {busy, f"{registered}-1"}
    with engine.begin() as connection:
        assert isinstance(claim(connection, wanted(idle)), NoTask)
        assert idle in names(connection)
        connection.execute(text("DELETE FROM agents WHERE name = ANY (:names)"), {"names": list(known)})


def forgetting(engine: Engine) -> list[str]:
    """Return the known agents after the sweeper's turn."""
    forget_gone_agents(engine)
    with engine.connect() as connection:
        return names(connection)


def test_delegating_loads_the_agents_that_it_names_and_counts_the_others(alone: Connection) -> None:
    add_agents(alone, "code-", 50, type="code")
    add_agents(alone, "general-", 30)
    add_agents(alone, "away-", 20, age=3_600)
    add_agents(alone, "other-", 10, type="research")
    whom = {Recipient("code-1", "code"), Recipient(None, "code"), Recipient("nobody", "code")}
    state = load(alone, ReadSet(descriptions={("s", "x")}, recipients={None: whom}))
    assert list(state._agents) == ["code-1"]
    assert state._online_types == {"code": 50, "general": 30}


def test_an_agent_that_only_claims_counts_as_unregistered(alone: Connection) -> None:
    assert isinstance(claim(alone, wanted("made-up")), NoTask)
    assert alone.scalar(text("SELECT is_registered FROM agents WHERE name = 'made-up'")) is False
