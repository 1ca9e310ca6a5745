"""Revoking a key while its requests wait or its responses are sent: they end, and reveal nothing more."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import Engine, text

from tests.support.processes.serving import Stopwatch
from tests.support.processes.stack import Payload, Stack, envelope, new_id, wait_for
from tests.support.sockets import receive_all

WITHIN_SECONDS = 5.0
"""The time within which a revoked key is refused. Without checks, these requests would last for 20 to 60 seconds."""
EVENTS = 60_000


@pytest.fixture(scope="module")
def engine(stack_engine: Engine) -> Engine:
    """Connections to the stack's database."""
    return stack_engine


@pytest.fixture(scope="module")
def session_id(stack: Stack, engine: Engine) -> str:
    """A session with a journal that takes long to read."""
    session_id = new_id("long")
    stack.send("create_session", session_id, title="Long")
    stack.send("delegate_task", session_id, task_id="t", description="never done", agent_name=new_id("nobody"))
    with engine.begin() as connection:
        insert = """
            INSERT INTO events (session_id, event, status, source, message, data, created_at)
            SELECT :session_id, 'store_memory', 'applied', 'tests', repeat('said ', 30), '{}', now()
            FROM generate_series(1, :events)"""
        connection.execute(text(insert), {"session_id": session_id, "events": EVENTS})
    return session_id


@pytest.fixture
def key(stack: Stack) -> Payload:
    made: Payload = stack.client.post("/v1/keys", json={"name": new_id("key"), "scopes": ["write", "agent"]}).json()
    wait_for(lambda: stack.client.get("/v1/tasks", headers=headers_of(made)).status_code == 200, what="key accepted")
    return made


def headers_of(key: Payload) -> dict[str, str]:
    return {"X-API-Key": key["key"]}


def revoke(stack: Stack, key: Payload) -> Stopwatch:
    assert stack.client.delete(f"/v1/keys/{key['name']}").status_code == 200
    return Stopwatch()


def test_a_stream_that_is_sending_a_backlog_ends(stack: Stack, session_id: str, key: Payload) -> None:
    headers = {**headers_of(key), "Accept": "text/event-stream"}
    with httpx.stream("GET", f"{stack.url}/v1/sessions/{session_id}/events?limit=1", headers=headers) as answer:
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith("data: "))
        watch = revoke(stack, key)
        rest = list(lines)
    assert watch.seconds < WITHIN_SECONDS
    assert sum(line.startswith("id: ") for line in rest) < EVENTS / 2
    assert rest[-3] == "event: error"
    assert "unknown_key" in rest[-2]


def test_a_response_to_a_client_that_does_not_read_is_cut_off(stack: Stack, session_id: str, key: Payload) -> None:
    before = stack.log("api").count("Cut off a stream")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", stack.port))
        head = f"GET /v1/sessions/{session_id}/export HTTP/1.1\r\nHost: x\r\nX-API-Key: {key['key']}\r\n\r\n"
        connection.sendall(head.encode())
        assert b"200 OK" in connection.recv(1_000)
        revoke(stack, key)
        wait_for(
            lambda: stack.log("api").count("Cut off a stream") == before + 1,
            seconds=WITHIN_SECONDS,
            what="stream cut off",
        )
        rest = receive_all(connection)
    assert not rest.endswith(b"0\r\n\r\n")  # An incomplete export must not look complete.


def test_waiting_requests_are_refused(stack: Stack, session_id: str, key: Payload) -> None:
    last = str(2**62)  # No event follows it.
    stack.stop("worker")
    try:
        with (
            httpx.Client(base_url=stack.url, headers=headers_of(key), timeout=60) as client,
            ThreadPoolExecutor(5) as pool,
        ):
            claim = {"agent_name": new_id("agent"), "task_types": [new_id("type")], "wait": 40}
            waiting = [
                pool.submit(client.get, f"/v1/sessions/{session_id}/events?after={last}&wait=40"),
                pool.submit(client.get, f"/v1/sessions/{session_id}/tasks/t?wait=40"),
                pool.submit(client.post, "/v1/tasks/claim", json=claim),
                pool.submit(client.post, "/v1/webhook?wait=40", json=envelope("get_session_summary", session_id)),
                pool.submit(
                    client.post, "/v1/commands/get_task", json={"session_id": session_id, "task_id": "t", "wait": 40}
                ),
            ]
            wait_for(lambda: not stack.drained(), what="stored")
            watch = revoke(stack, key)
            assert [answer.result().status_code for answer in waiting] == [401] * 5
            assert watch.seconds < WITHIN_SECONDS
    finally:
        stack.start("worker")
