"""Fair shares: one source reads as much and as slowly as it can, while others and readiness checks are served."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, text

from models.queue.inbox import shard_of
from tests.support.processes.serving import Serving, Stopwatch
from tests.support.processes.stack import Stack, envelope, new_id, wait_for
from tests.support.project import API_KEY

PROMPT_SECONDS = 1.0
"""The time for a read of a few rows, which takes milliseconds. Without shares it would wait for ten seconds here."""


@pytest.fixture(scope="module")
def engine(stack_engine: Engine) -> Engine:
    """Connections to the stack's database."""
    return stack_engine


@pytest.fixture(scope="module")
def session_id(stack: Stack) -> str:
    session_id = new_id("fair")
    stack.send("create_session", session_id, title="Fair")
    stack.send("store_memory", session_id, key="k", content="here")
    return session_id


@pytest.fixture(scope="module")
def greedy(stack: Stack) -> Iterator[httpx.Client]:
    with client_of(stack) as client:
        yield client


@pytest.fixture(scope="module")
def other(stack: Stack) -> Iterator[httpx.Client]:
    with client_of(stack) as client:
        yield client


@contextmanager
def client_of(stack: Stack) -> Iterator[httpx.Client]:
    """Return a client with a key of its own, once the relay accepts it."""
    made = stack.client.post("/v1/keys", json={"name": new_id("key"), "scopes": ["write", "agent"]}).json()
    limits = httpx.Limits(max_connections=300)
    with httpx.Client(base_url=stack.url, headers={"X-API-Key": made["key"]}, timeout=60, limits=limits) as client:
        wait_for(lambda: client.get("/v1/tasks").status_code == 200, what="key accepted")
        yield client


@contextmanager
def locked(engine: Engine, statement: str, **values: str) -> Iterator[None]:
    """Hold a lock that makes reads as slow as large searches, at no cost for this machine."""
    with engine.connect() as connection, connection.begin() as transaction:
        connection.execute(text(statement), values)
        yield
        transaction.rollback()


@contextmanager
def sending(requests: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads, joined at the end of the block; release what blocks them before that."""
    pool = ThreadPoolExecutor(requests)
    try:
        yield pool
    finally:
        pool.shutdown()


@pytest.mark.parametrize("requests", [24, 48])
def test_slow_reads_of_one_key_delay_neither_other_keys_nor_readiness_checks(
    stack: Stack, session_id: str, engine: Engine, greedy: httpx.Client, other: httpx.Client, requests: int
) -> None:
    with sending(requests) as pool:
        with locked(engine, "LOCK TABLE artifacts IN ACCESS EXCLUSIVE MODE"):
            slow = [pool.submit(greedy.get, f"/v1/sessions/{session_id}/artifacts") for _ in range(requests)]
            wait_for(lambda: waiting_for_locks(engine) >= 4, what="waiting")
            for _ in range(10):
                watch = Stopwatch()
                assert other.get(f"/v1/sessions/{session_id}/memories/k").json()["content"] == "here"
                assert httpx.get(f"{stack.url}/readyz").json()["postgres"] == "ok"
                assert stack.client.get("/v1/status").json()["postgres"]["state"] == "ok"
                assert watch.seconds < PROMPT_SECONDS
            assert waiting_for_locks(engine) == 4
        assert {answer.result().status_code for answer in slow} == {200}


def test_a_stopping_relay_finishes_reads_that_it_has_begun_and_rejects_those_that_wait(
    stack: Stack, session_id: str, engine: Engine, tmp_path: Path
) -> None:
    servers = {name: stack.environment[name] for name in ("DATABASE_URL", "REDIS_URL")}
    relay = Serving("api", tmp_path, **servers)
    limits = httpx.Limits(max_connections=12)
    with httpx.Client(base_url=relay.url, headers={"X-API-Key": API_KEY}, timeout=60, limits=limits) as client:
        with sending(12) as pool:
            with locked(engine, "LOCK TABLE artifacts IN ACCESS EXCLUSIVE MODE"):
                reads = [pool.submit(client.get, f"/v1/sessions/{session_id}/artifacts") for _ in range(12)]
                wait_for(lambda: waiting_for_locks(engine) == 4, what="waiting")
                os.kill(relay.running.pid, signal.SIGTERM)
                wait_for(lambda: sum(read.done() for read in reads) == 8, what="waiting reads rejected")
            answers = [read.result() for read in reads]
        assert Counter(answer.status_code for answer in answers) == {200: 4, 503: 8}
        rejected = next(answer for answer in answers if answer.status_code == 503)
        assert "restarting" in rejected.json()["error"]["message"]
        assert int(rejected.headers["retry-after"]) > 0
    relay.close()


def test_blocked_claims_of_one_key_do_not_delay_those_of_another(
    stack: Stack, session_id: str, engine: Engine, greedy: httpx.Client, other: httpx.Client
) -> None:
    agents = [new_id("agent"), new_id("agent")]
    for client, agent_name in zip((greedy, other), agents, strict=True):
        assert (
            client.post("/v1/tasks/claim", json={"agent_name": agent_name, "task_types": ["none"]}).status_code == 204
        )
        stack.send("delegate_task", session_id, description=f"do it, {agent_name}", agent_name=agent_name)
    with sending(12) as pool:
        with locked(engine, "SELECT 1 FROM agents WHERE name = :name FOR UPDATE", name=agents[0]):
            slow = [
                pool.submit(greedy.post, "/v1/tasks/claim", json={"agent_name": agents[0], "task_types": ["none"]})
                for _ in range(12)
            ]
            wait_for(lambda: waiting_for_locks(engine) >= 2, what="waiting")
            watch = Stopwatch()
            assert (
                other.post("/v1/tasks/claim", json={"agent_name": agents[1], "task_types": ["none"]}).status_code == 200
            )
            assert watch.seconds < PROMPT_SECONDS
        assert sorted(answer.result().status_code for answer in slow) == [200, *[204] * 11]


def waiting_for_locks(engine: Engine, name: str = "") -> int:
    """Count the connections of programs with this name that wait for a lock."""
    with engine.connect() as connection:
        statement = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            " AND starts_with(application_name, :name)"
        )
        return int(connection.scalar(text(statement), {"name": name}) or 0)


def test_reads_sent_as_commands_delay_later_writes_by_at_most_a_second(
    stack: Stack, session_id: str, engine: Engine, greedy: httpx.Client, other: httpx.Client
) -> None:
    behind = next(name for name in iter(new_id, "") if shard_of(name) == shard_of(session_id))
    stack.send("create_session", behind, title="Behind")
    write = {"command": "store_memory", "data": {"key": "in-batch", "content": "kept"}}
    batch = {"commands": [write, *[{"command": "list_artifacts", "data": {}}] * 10]}
    with locked(engine, "LOCK TABLE artifacts IN ACCESS EXCLUSIVE MODE"):
        slow = [greedy.post("/v1/webhook", json=envelope("batch", session_id, **batch)).json() for _ in range(8)]
        watch = Stopwatch()
        answer = other.post("/v1/webhook?wait=30", json=envelope("store_memory", behind, key="k", content="applied"))
        assert (answer.status_code, answer.json()["status"]) == (200, "success")
        assert watch.seconds < 5, "each read takes half a second, and eighty are ahead of it"
    for receipt in slow:
        delivery = greedy.get(receipt["status_url"]).json()
        assert delivery["status"] == "applied"
        assert (delivery["result"]["data"]["processed"], delivery["result"]["data"]["failed"]) == (1, 10)
    assert greedy.get(f"/v1/sessions/{session_id}/memories/in-batch").json()["content"] == "kept"


def test_a_sender_that_waits_gets_a_read_that_had_no_more_time_in_the_drain(
    stack: Stack, session_id: str, engine: Engine, other: httpx.Client
) -> None:
    """As a GET would, which may take longer: on a busy machine a read may be slow without being large."""
    stack.send("add_artifact", session_id, artifact_id="plan", name="Plan", content="text")
    body = envelope("get_artifact", session_id, artifact_id="plan")
    with sending(1) as pool:
        with locked(engine, "LOCK TABLE artifacts IN ACCESS EXCLUSIVE MODE"):
            answer = pool.submit(other.post, "/v1/webhook?wait=20", json=body)
            wait_for(lambda: waiting_for_locks(engine, "session-relay api"), what="a read outside the drain")
        response = answer.result()
    assert (response.status_code, response.json()["data"]["artifact"]["content"]) == (200, "text")
