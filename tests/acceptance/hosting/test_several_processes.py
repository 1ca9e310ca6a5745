"""A stack whose relay runs as two processes: each answers for both, and one may die."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psutil
import pytest

from local.servers.embedded import EmbeddedServer
from tests.support.clients.mcp import HEADERS
from tests.support.processes.connections import (
    ask,
    ask_once,
    connect_to,
    wait_until_complete,
)
from tests.support.processes.stack import Stack, envelope, in_parallel, new_id, new_stack, wait_for

WEBHOOKS = 150


@pytest.fixture(scope="module")
def shared_pair(postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with new_stack(postgres, tmp_path_factory.mktemp("pair"), RELAY_PROCESSES="2") as stack:
        yield stack


@pytest.fixture
def pair(shared_pair: Stack) -> Stack:
    """A running stack whose relay runs as two processes. A test may stop them."""
    shared_pair.start()
    processes(shared_pair)
    return shared_pair


def processes(stack: Stack) -> list[psutil.Process]:
    return wait_until_complete(stack.pid("api"), stack.port)


def registered(stack: Stack) -> set[str]:
    items = stack.client.get("/v1/agents", params={"limit": 500}).json()["items"]
    return {agent["name"] for agent in items}


def test_each_process_answers_waiting_senders_and_mcp_clients(pair: Stack) -> None:
    session_id = new_id()
    pair.send("create_session", session_id, title="Shared")
    for process in processes(pair):
        with closing(connect_to(process, pair.port)) as connection:
            stored = envelope("store_memory", session_id, key=f"by-{process.pid}", content="kept")
            answer = ask(connection, "POST", "/v1/webhook?wait=30", stored)
            assert (answer.status, answer.body["status"]) == (200, "success")
    # A client is known to none of them; one is enough to show it, since each takes a second to import the SDK.
    with closing(connect_to(processes(pair)[-1], pair.port)) as connection:
        call = {"name": "store_memory", "arguments": {"session_id": session_id, "key": "mcp", "content": "kept"}}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
        shown = ask(connection, "POST", "/mcp", message, **HEADERS).body
        assert shown["result"]["structuredContent"]["status"] == "success", shown
    many = [envelope("store_memory", session_id, key=f"many-{number}", content="kept") for number in range(40)]
    answers = list(in_parallel(lambda body: ask_once(pair.port, "POST", "/v1/webhook?wait=30", body), many))
    assert {answer.status for answer in answers} == {200}


def test_a_claim_at_one_process_gets_the_task_sent_to_the_other(pair: Stack) -> None:
    session_id, agent = new_id(), new_id("agent")
    pair.send("create_session", session_id, title="Work")
    first, second = (connect_to(process, pair.port) for process in processes(pair))
    with closing(first), closing(second), ThreadPoolExecutor(1) as pool:
        wanted = {"agent_name": agent, "wait": 40}
        claim = pool.submit(ask, first, "POST", "/v1/tasks/claim", wanted)
        wait_for(lambda: pair.redis.publish("sr:tasks", b"{}") >= 2, what="both processes subscribed")
        task = envelope("delegate_task", session_id, task_id="t", agent_name=agent, description="Look")
        assert ask(second, "POST", "/v1/webhook", task).status == 202
        assert claim.result().body["task_id"] == "t"


def test_a_key_is_known_and_revoked_at_both_processes(pair: Stack) -> None:
    connections = [connect_to(process, pair.port) for process in processes(pair)]
    new = ask(connections[0], "POST", "/v1/keys", {"name": new_id("key"), "scopes": ["read"]}).body

    def statuses() -> set[int]:
        key = {"X-API-Key": new["key"]}
        return {ask(connection, "GET", "/v1/sessions", **key).status for connection in connections}

    wait_for(lambda: statuses() == {200}, what="key known")
    assert ask(connections[1], "DELETE", f"/v1/keys/{new['key_id']}").status == 200
    wait_for(lambda: statuses() == {401}, seconds=5, what="key revoked")
    for connection in connections:
        connection.close()


def test_a_process_killed_under_load_loses_nothing_that_was_answered(pair: Stack) -> None:
    session_id = new_id()
    pair.send("create_session", session_id, title="Load")
    before = processes(pair)

    def send(number: int) -> str | None:
        if number == WEBHOOKS // 3:
            before[0].kill()
        key = f"key-{number}"
        body = envelope("store_memory", session_id, key=key, content="kept")
        answer = ask_once(pair.port, "POST", "/v1/webhook", body, **{"Idempotency-Key": f"{session_id}-{number}"})
        return key if answer and answer.status == 202 else None

    accepted = {key for key in in_parallel(send, range(WEBHOOKS), threads=8) if key}
    assert len(accepted) > WEBHOOKS // 2
    after = processes(pair)
    assert before[0] not in after
    assert before[1] in after
    pair.wait_until_drained()
    stored = pair.client.get(f"/v1/sessions/{session_id}/memories", params={"limit": 500}).json()["items"]
    assert accepted <= {memory["key"] for memory in stored}
    for process in after:
        with closing(connect_to(process, pair.port)) as connection:
            assert ask(connection, "GET", "/readyz").body["postgres"] == "ok"


def test_all_processes_answer_who_waits_and_end_with_the_supervisor(pair: Stack) -> None:
    running, logged = processes(pair), len(pair.log("api"))
    connections = [connect_to(process, pair.port) for process in running]
    with ThreadPoolExecutor(2) as pool:
        agents = [new_id("agent") for _ in connections]
        claims = [
            pool.submit(ask, connection, "POST", "/v1/tasks/claim", {"agent_name": agent, "wait": 40})
            for connection, agent in zip(connections, agents, strict=True)
        ]
        wait_for(lambda: set(agents) <= registered(pair), what="both claims arrived")
        pair.stop("api")
        assert [claim.result().status for claim in claims] == [204, 204]
    assert not any(process.is_running() for process in running)
    assert "SIGKILL" not in pair.log("api")[logged:]
