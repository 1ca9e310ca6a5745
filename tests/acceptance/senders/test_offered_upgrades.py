"""A client that offers HTTP/2 with each request, as Java's does: its body arrives at every URL that accepts one."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from tests.support.clients.agents import Agent, delegating
from tests.support.clients.keys import make_key
from tests.support.clients.signing import WEBHOOK_SECRET
from tests.support.processes.stack import Payload, Stack, envelope, new_id, wait_for
from tests.support.project import API_KEY
from tests.support.sockets import receive_all

OFFER = (
    "Connection: Upgrade, HTTP2-Settings\r\n"
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
    "Upgrade: h2c\r\n"
)
KEY = {"X-API-Key": API_KEY, "Content-Type": "application/json"}


class Java:
    """A connection as of java.net.http.HttpClient: it offers h2c, and sends head and body one after the other."""

    def __init__(self, stack: Stack) -> None:
        self._socket = socket.create_connection(("127.0.0.1", stack.port), timeout=60)

    def close(self) -> None:
        self._socket.close()

    def post(self, path: str, body: Any = b"", headers: dict[str, str] = KEY) -> tuple[int, Any]:
        """Post JSON, or bytes unchanged. Returns the status and the response's body."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {path} HTTP/1.1\r\n{OFFER}Content-Length: {len(content)}\r\nHost: 127.0.0.1\r\n{lines}\r\n"
        self._socket.sendall(head.encode())
        self._socket.sendall(content)
        with http.client.HTTPResponse(self._socket, method="POST") as response:
            response.begin()
            answer = response.read()
            return response.status, json.loads(answer) if answer else None


@pytest.fixture
def java(fuzzed: Stack) -> Any:
    with closing(Java(fuzzed)) as client:
        yield client


@pytest.fixture
def session_id(fuzzed: Stack) -> str:
    name = new_id("java")
    fuzzed.send("create_session", name, title="Java")
    return name


def content_of(stack: Stack, session_id: str, key: str) -> Any:
    return stack.client.get(f"/v1/sessions/{session_id}/memories/{key}").json()["content"]


@pytest.mark.parametrize("path", ["/webhook", "/v1/webhook"])
def test_webhooks(fuzzed: Stack, java: Java, session_id: str, path: str) -> None:
    body = envelope("store_memory", session_id, key="k", content="from Java")
    status, answer = java.post(f"{path}?wait=30", body)
    assert (status, answer["status"]) == (200, "success")
    assert content_of(fuzzed, session_id, "k") == "from Java"


def test_signed_webhooks(fuzzed: Stack, java: Java, session_id: str) -> None:
    body = json.dumps(envelope("store_memory", session_id, key="k", content="signed"))
    now, name = datetime.now(UTC), new_id("msg")
    signature = Webhook(WEBHOOK_SECRET).sign(name, now, body)
    headers = {"webhook-id": name, "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    status, answer = java.post("/v1/webhook?wait=30", body.encode(), headers)
    assert (status, answer["status"]) == (200, "success")
    assert content_of(fuzzed, session_id, "k") == "signed"


def test_commands(fuzzed: Stack, java: Java, session_id: str) -> None:
    status, answer = java.post(
        "/v1/commands/store_memory?wait=30", {"session_id": session_id, "key": "k", "content": 5}
    )
    assert (status, answer["status"]) == (200, "success")
    assert content_of(fuzzed, session_id, "k") == 5
    assert java.post("/v1/commands/list_sessions?wait=30", {"limit": 1})[1]["data"]["sessions"][1:] == []


def test_hooks(fuzzed: Stack, java: Java, session_id: str) -> None:
    hook = make_key(fuzzed, new_id("hook"), scopes=["hook"], sessions=session_id)
    wait_for(lambda: java.post(hook["url"], {"state": "ready"})[0] == 202, what="hook usable")
    wait_for(lambda: fuzzed.client.get(f"/v1/sessions/{session_id}/memories").json()["items"], what="applied")
    (memory,) = fuzzed.client.get(f"/v1/sessions/{session_id}/memories").json()["items"]
    assert memory["content"] == {"state": "ready"}


def test_claims(fuzzed: Stack, java: Java, session_id: str) -> None:
    agent = Agent(fuzzed)
    delegate = delegating(fuzzed, session_id, agent)
    for task_id in ("done", "failed", "asking", "released"):
        delegate(task_id)

    def claim() -> Payload:
        status, task = java.post("/v1/tasks/claim", {"agent_name": agent.name, "lease_seconds": 600})
        assert status == 200
        return dict(task)

    def act(task: Payload, action: str, body: Any = b"") -> Payload:
        status, answer = java.post(f"/v1/claims/{task['claim_token']}/{action}", body)
        assert status == 200, answer
        return dict(answer)

    task = claim()
    assert act(task, "start")["status"] == "running"
    act(task, "heartbeat", {"progress": "half", "percent": 50})
    assert fuzzed.client.get(f"/v1/sessions/{session_id}/tasks/done").json()["progress"]["percent"] == 50
    act(task, "complete", {"output": {"result": "kept"}, "artifacts": [{"name": "a", "type": "t", "content": "c"}]})
    act(claim(), "fail", {"error": "It is broken."})
    act(claim(), "ask", {"question": "Which one?"})
    act(claim(), "release", {})
    tasks = {
        name: fuzzed.client.get(f"/v1/sessions/{session_id}/tasks/{name}").json()
        for name in ("done", "failed", "asking")
    }
    assert tasks["done"]["output"] == {"result": "kept"}
    assert len(fuzzed.client.get(f"/v1/sessions/{session_id}/artifacts").json()["items"]) == 1
    assert tasks["failed"]["error"] == "It is broken."
    assert tasks["asking"]["question"] == "Which one?"


def test_keys_and_agents(java: Java) -> None:
    name = new_id("java")
    status, key = java.post("/v1/keys", {"name": name, "scopes": ["read"]})
    assert (status, key["name"], key["scopes"]) == (201, name, ["read"])
    status, agent = java.post("/v1/agents", {"name": name, "type": "research"})
    assert (status, agent["name"], agent["type"]) == (200, name, "research")


def test_imports(fuzzed: Stack, java: Java, session_id: str) -> None:
    fuzzed.send("store_memory", session_id, key="k", content="x" * 200_000)
    document = fuzzed.client.get(f"/v1/sessions/{session_id}/export?format=json").content
    fuzzed.send("delete_session", session_id, confirm=session_id)
    assert java.post("/v1/import", document) == (200, {"session_id": session_id, "created": True})
    assert fuzzed.client.get(f"/v1/sessions/{session_id}/export?format=json").content == document


def test_mcp(java: Java) -> None:
    accept = {**KEY, "Accept": "application/json, text/event-stream"}
    status, answer = java.post("/mcp", {"jsonrpc": "2.0", "id": 7, "method": "tools/list"}, accept)
    assert (status, answer["id"]) == (200, 7)
    assert "claim_task" in {tool["name"] for tool in answer["result"]["tools"]}


def test_oauth(fuzzed: Stack, java: Java) -> None:
    app = {"client_name": "Java", "redirect_uris": ["https://java.example/back"], "token_endpoint_auth_method": "none"}
    status, registered = java.post("/oauth/register", app)
    assert (status, registered["client_name"]) == (201, "Java")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    asked = (
        f"grant_type=authorization_code&code=c&code_verifier={'v' * 43}&client_id={registered['client_id']}".encode()
    )
    plain = fuzzed.client.post("/oauth/token", content=asked, headers=form)
    assert plain.json()["error"] == "invalid_grant"
    assert java.post("/oauth/token", asked, form) == (plain.status_code, plain.json())
    assert java.post("/oauth/revoke", b"token=sro_" + b"a" * 40, form) == (200, {})


def test_dead_letters(java: Java) -> None:
    assert java.post("/v1/dead-letters/replay", b"{}") == (202, {"replayed": 0, "next_cursor": None})
    status, answer = java.post("/v1/dead-letters/none/replay", b"{}")
    assert (status, answer["error"]["code"]) == (404, "dead_letter_not_found")


EMPTY = {
    "a length of nothing": b"Content-Length: 0\r\n\r\n",
    "no length": b"\r\n",
    "no parts": b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "compressed nothing": b"Content-Encoding: deflate\r\nContent-Length: 8\r\n\r\nx\x9c\x03\x00\x00\x00\x00\x01",
}


@pytest.mark.parametrize("kind", EMPTY)
def test_a_body_that_was_not_announced_counts_as_an_empty_object(fuzzed: Stack, session_id: str, kind: str) -> None:
    agent = Agent(fuzzed)
    delegating(fuzzed, session_id, agent)("t")
    token = agent.claim()["claim_token"]

    def post(path: str) -> int:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\nConnection: close\r\n".encode()
        with socket.create_connection(("127.0.0.1", fuzzed.port), timeout=60) as connection:
            connection.sendall(head + EMPTY[kind])
            answer = receive_all(connection)
        assert b'"not_json"' in answer or b" 200 " in answer, answer
        return int(answer.split(b" ")[1])

    expected = 200 if kind in ("a length of nothing", "no length") else 400
    assert post("/v1/commands/list_sessions?wait=30") == expected
    assert post(f"/v1/claims/{token}/start") == expected
    assert post(f"/v1/claims/{token}/complete") == expected
    status = fuzzed.client.get(f"/v1/sessions/{session_id}/tasks/t").json()["status"]
    assert status == ("completed" if expected == 200 else "claimed")


@pytest.mark.parametrize(
    "trailer",
    [f"X-API-Key: {API_KEY}", f"Authorization: Bearer {API_KEY}"],
)
def test_a_credential_in_a_trailer_does_not_authenticate(fuzzed: Stack, trailer: str) -> None:
    body = json.dumps(envelope("list_sessions")).encode()
    for path in ("/v1/webhook", "/v1/commands/list_sessions", "/v1/keys", "/mcp", "/v1/import"):
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunked = b"%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(body), body, trailer.encode())
        with socket.create_connection(("127.0.0.1", fuzzed.port), timeout=60) as connection:
            connection.sendall(head.encode() + chunked)
            answer = receive_all(connection)
        assert answer.startswith(b"HTTP/1.1 401"), (path, answer)


def test_a_signature_and_an_id_in_a_trailer_are_ignored(fuzzed: Stack) -> None:
    body = json.dumps(envelope("list_sessions"))
    now = datetime.now(UTC)
    signature = Webhook(WEBHOOK_SECRET).sign("msg_t", now, body)
    trailers = f"webhook-id: msg_t\r\nwebhook-timestamp: {int(now.timestamp())}\r\nwebhook-signature: {signature}\r\n"
    for key, trailer, status in (
        ("", trailers, b"401"),
        (f"X-API-Key: {API_KEY}\r\n", "Idempotency-Key: t\r\n", b"202"),
    ):
        head = f"POST /v1/webhook HTTP/1.1\r\nHost: x\r\n{key}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        with socket.create_connection(("127.0.0.1", fuzzed.port), timeout=60) as connection:
            connection.sendall(f"{head}{len(body):x}\r\n{body}\r\n0\r\n{trailer}\r\n".encode())
            answer = receive_all(connection)
        assert answer.startswith(b"HTTP/1.1 " + status), answer
        assert b'"delivery_id":"t"' not in answer
