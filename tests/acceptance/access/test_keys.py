"""API keys on running processes: several relays, servers that go away, and the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import httpx
import pytest

from local.keys import main
from local.servers.embedded import EmbeddedServer
from tests.support.clients.keys import make_key
from tests.support.processes.serving import Serving
from tests.support.processes.stack import Payload, Stack, envelope, new_id, wait_for
from tests.support.project import ROOT

WITHIN_SECONDS = 5.0
"""The time within which every relay knows of a change."""


def try_key(url: str, key: str) -> int:
    """Return the status of a relay's response to a webhook with the key."""
    return httpx.post(f"{url}/v1/webhook", json=envelope("list_sessions"), headers={"X-API-Key": key}).status_code


def answers(url: str, key: str, *statuses: int) -> bool:
    """Return whether the relay's response has one of these statuses."""
    return try_key(url, key) in statuses


def test_a_key_revoked_while_postgres_is_down_stays_refused_by_every_relay(
    own_stack: Stack, own_postgres: EmbeddedServer, own_redis_url: str, tmp_path: Path
) -> None:
    second = Serving("relay", tmp_path, REDIS_URL=own_redis_url)
    urls = [own_stack.url, second.url]
    new = make_key(own_stack)
    for url in urls:
        wait_for(partial(answers, url, new["key"], 202), seconds=WITHIN_SECONDS, what="accepted")
    own_postgres.pause()
    revoked = own_stack.client.delete(f"/v1/keys/{new['name']}")
    assert (revoked.status_code, revoked.json()["recorded"]) == (200, False)
    assert [item["key_id"] for item in revoked.json()["revoked"]] == [new["key_id"]]
    for url in urls:
        wait_for(partial(answers, url, new["key"], 401), seconds=WITHIN_SECONDS, what="refused")
    late = Serving("relay", tmp_path, REDIS_URL=own_redis_url)
    assert try_key(late.url, new["key"]) == 401
    own_postgres.restart()
    listed = wait_for(
        lambda: [key for key in own_stack.client.get("/v1/keys").json()["items"] if key["revoked_at"]],
        what="recorded in Postgres",
    )
    assert (listed[0]["key_id"], listed[0]["revoked_by"]) == (new["key_id"], "default")
    own_stack.redis.flushdb()  # Now only Postgres knows.
    for url in (*urls, late.url):
        wait_for(partial(answers, url, new["key"], 401, 503))
        wait_for(partial(answers, url, new["key"], 401), what="refused again")
        assert try_key(url, own_stack.api_key) == 202
    late.close()
    second.close()


def test_a_stream_ends_when_its_key_is_revoked(stack: Stack) -> None:
    session_id = new_id("journal")
    stack.send("create_session", session_id, title="Watched")
    new = make_key(stack, scopes=["read"])
    headers = {"X-API-Key": new["key"], "Accept": "text/event-stream"}
    wait_for(lambda: try_key(stack.url, new["key"]) == 202, seconds=WITHIN_SECONDS)
    received: list[str] = []
    started = threading.Event()

    def listen() -> None:
        with httpx.stream("GET", f"{stack.url}/v1/sessions/{session_id}/events", headers=headers, timeout=30) as stream:
            for line in stream.iter_lines():
                received.append(line)
                started.set()

    listener = threading.Thread(target=listen)
    listener.start()
    assert started.wait(10)
    assert stack.client.delete(f"/v1/keys/{new['key_id']}").status_code == 200
    listener.join(15)
    assert not listener.is_alive()
    assert "event: error" in received
    assert (
        json.loads(received[received.index("event: error") + 1].removeprefix("data: "))["error"]["code"]
        == "unknown_key"
    )


def test_keys_are_listed_without_their_secrets(stack: Stack) -> None:
    new = make_key(stack, scopes=["agent", "read"], sessions="chat-*")
    listed = stack.client.get("/v1/keys")
    assert new["key"] not in listed.text
    item = next(item for item in listed.json()["items"] if item["key_id"] == new["key_id"])
    assert item == {name: value for name, value in new.items() if name != "key"}
    assert (item["scopes"], item["sessions"], item["created_by"]) == (["read", "agent"], "chat-*", "default")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "x"}, "scopes"),
        ({"name": "x", "scopes": ["root"]}, "scopes[0]"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x y", "scopes": ["read"]}, "name"),
        ({"name": "x", "scopes": ["read"], "session": "a"}, "session"),
        ({"name": "x", "scopes": ["hook"]}, "sessions"),
    ],
)
def test_an_invalid_request_for_a_key_names_the_field(stack: Stack, body: Payload, field: str) -> None:
    answer = stack.client.post("/v1/keys", json=body)
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, field), answer.text


def test_an_event_posted_to_a_hook_becomes_a_memory_of_its_session(stack: Stack) -> None:
    session_id = new_id("deploys")
    stack.send("create_session", session_id, title="Deploys")
    name = new_id("railway")
    hook = make_key(stack, name, scopes=["hook"], sessions=session_id)
    assert hook["url"] == f"/v1/hooks/{hook['key']}"
    event = {
        "type": "Deployment.failed",
        "details": {"status": "FAILED", "attempt": 1},
        "resource": {"deployment": {"id": "d-1"}},
        "timestamp": "2026-11-22T10:00:00.000Z",
    }

    def post(content: bytes, **headers: str) -> httpx.Response:
        headers = {"Content-Type": "application/json", **{name.replace("_", "-"): v for name, v in headers.items()}}
        return httpx.post(f"{stack.url}{hook['url']}?wait=20", content=content, headers=headers)

    body = json.dumps(event).encode()
    wait_for(lambda: post(body).status_code == 200, seconds=WITHIN_SECONDS, what="hook usable")
    assert post(body).json()["delivery_id"] == post(body).json()["delivery_id"]
    for other in (b'["plain", 1e23]', b'"text"', b"17", json.dumps({**event, "attempt": 2}).encode()):
        assert post(other).status_code == 200
    for name_of_id in ("Idempotency_Key", "webhook_id", "svix_id", "X_GitHub_Delivery"):
        for _ in range(2):
            assert post(body, **{name_of_id: f"of={name_of_id}"}).status_code == 200
    memories = stack.client.get(f"/v1/sessions/{session_id}/memories", params={"tags": name}).json()["items"]
    assert len(memories) == 9
    assert {memory["revision"] for memory in memories} == {1}
    failed = next(memory for memory in reversed(memories) if "deployment-failed" in memory["key"])
    assert failed["content"] == event
    assert (failed["type"], failed["revision"], failed["tags"]) == ("note", 1, [name])
    assert b'["plain", 1e23]' in stack.client.get(f"/v1/sessions/{session_id}/export").content
    not_json = post(b"{")
    assert (not_json.status_code, not_json.json()["error"]["code"]) == (400, "not_json")
    # The hook's key allows nothing else.
    for path in ("/v1/webhook", "/v1/commands/list_sessions"):
        refused = httpx.post(f"{stack.url}{path}", json={}, headers={"X-API-Key": hook["key"]})
        assert refused.status_code == 401
        assert "hook" in refused.json()["error"]["message"]
    key = make_key(stack)["key"]
    for token in ("srh_" + "a" * 40, key, "x", hook["key"] + "x"):
        unknown = httpx.post(f"{stack.url}/v1/hooks/{token}", json={})
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_hook")
        assert token not in unknown.text
    assert hook["key"] not in stack.log("api") + stack.log("worker")


def test_the_command_line_creates_lists_and_revokes_keys(
    stack: Stack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in stack.environment.items():
        monkeypatch.setenv(variable, value)

    def run(*arguments: str) -> tuple[int, str, str]:
        """Run it in this process. Returns its exit code, and its outputs."""
        try:
            code = main(arguments)
        except SystemExit as ended:
            assert isinstance(ended.code, int)
            code = ended.code
        return code, *capsys.readouterr()

    name = new_id("cli")
    arguments = ("create", name, "--scope", "read", "--scope", "delegate", "--sessions", "chat-*")
    command = [sys.executable, "-m", "local.keys", *arguments]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert key.startswith("srk_")
    assert f"for '{name}' (read, delegate; sessions: chat-*)" in made.stderr
    wait_for(lambda: try_key(stack.url, key) == 202, seconds=WITHIN_SECONDS)
    listed = [line.split("\t") for line in run("list")[1].splitlines()]
    assert next(row[2:4] for row in listed if row[1] == name) == ["read,delegate", "chat-*"]
    assert any(item["name"] == name for item in json.loads(run("list", "--json")[1]))
    assert json.loads(run("revoke", name, "--json")[1])["recorded"] is True
    wait_for(lambda: try_key(stack.url, key) == 401, seconds=WITHIN_SECONDS)
    code, output, errors = run("revoke", "nobody")
    assert (code, output) == (1, "")
    assert "Key 'nobody' not found" in errors
    assert run("create", name)[0] == 1
    assert run("create", "x", "--scope", "root")[0] == 2
