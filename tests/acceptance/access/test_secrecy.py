"""Secrets and content appear in no log, error, RQ job, list of refusals, page or command line.

All requests that can carry them are sent through a whole stack with full logging, and then all its output is searched.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import psutil
import pytest

from local.servers.embedded import EmbeddedServer
from models.commands.definitions import COMMANDS
from tests.support.clients.keys import new_key
from tests.support.clients.permissions import COMMAND_NEEDS
from tests.support.clients.signing import WEBHOOK_SECRET, send_signed
from tests.support.ports import free_port
from tests.support.processes.stack import Payload, Stack, envelope, new_id, wait_for
from tests.support.servers import execute, new_database, running_valkey

PASSWORD = f"dashboard-{secrets.token_hex(8)}"
GITHUB = f"github-{secrets.token_hex(8)}"
SAID = f"kumquat{secrets.token_hex(8)}"
"""A word in everything that is sent, which must not be found afterwards."""
TRIGGER = """
CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF new.key = 'poison' THEN RAISE EXCEPTION 'not %', new.content; END IF;
    RETURN new;
END $$;
CREATE TRIGGER poison BEFORE INSERT ON memories FOR EACH ROW EXECUTE FUNCTION poison()
"""
CONTENT: Payload = {
    "title": SAID,
    "content": f"Ana: {SAID}",
    "description": SAID,
    "name": SAID,
    "q": SAID,
    "answer": SAID,
    "reason": SAID,
    "tags": [SAID],
    "metadata": {SAID: SAID},
}


def rpc(method: str, **params: Any) -> Payload:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


MCP_HEADERS = {"Accept": "application/json, text/event-stream"}
MCP_MESSAGES = (
    rpc("tools/call", name=SAID, arguments=SAID),
    rpc("resources/read", uri=SAID),
    rpc("prompts/get", name="resume_session", arguments={"session_id": SAID}),
    rpc(SAID),
)
"""Invalid messages without a command."""


@pytest.fixture(scope="module")
def talkative(postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose processes all log as much as they can."""
    with new_database(postgres) as database_url, running_valkey() as valkey:
        stack = Stack(
            database_url=database_url,
            redis_url=valkey.url,
            folder=tmp_path_factory.mktemp("secrecy"),
            LOG_LEVEL="DEBUG",
            WEBHOOK_SECRETS=f"signer={WEBHOOK_SECRET}",
            GITHUB_WEBHOOK_SECRET=GITHUB,
            DASHBOARD_PORT=str(free_port()),
            DASHBOARD_PASSWORD=PASSWORD,
        )
        execute(stack.environment["DATABASE_URL"], TRIGGER)
        stack.start("api", "worker", "worker.dashboard")
        yield stack
        stack.close()


@pytest.fixture(scope="module")
def sent(talkative: Stack) -> list[str]:
    """Send all kinds of requests, valid and invalid. Returns the secrets that they contained."""
    stack = talkative
    session_id = new_id("walk")
    stack.send("create_session", session_id, title=SAID)
    key = new_key(stack, scopes=["read", "write"])
    hook = new_key(stack, scopes=["hook"], sessions=session_id)
    typo = "srk_" + secrets.token_hex(20)
    wait_for(lambda: try_hook(stack, hook, {"type": SAID, "text": SAID}).status_code == 200, seconds=10)
    for name, (_, data) in COMMAND_NEEDS.items():
        fields = {field: CONTENT.get(field, value) for field, value in data.items()}
        wordy = {field: CONTENT[field] for field in COMMANDS[name].__struct_fields__ if field in CONTENT}
        for attempt in ({**fields, **wordy}, {**fields, SAID: SAID}, {field: {SAID: 1} for field in fields}):
            stack.client.post("/v1/webhook?wait=20", json=envelope(name, session_id, **attempt))
            stack.client.post("/v1/webhook", json=envelope(name, session_id, **attempt), headers={"X-API-Key": key})
            stack.client.post(f"/v1/commands/{name}", json={"session_id": session_id, **attempt})
            for message in mcp_calls(name, {"session_id": session_id, **attempt}):
                stack.client.post("/mcp", json=message, headers=MCP_HEADERS)
    for message in MCP_MESSAGES:
        stack.client.post("/mcp", json=message, headers=MCP_HEADERS)
    for content in (b'{"a": "%b' % SAID.encode(), SAID.encode(), b"\xff" + SAID.encode(), b"[" * 5000 + SAID.encode()):
        stack.client.post("/v1/webhook", content=content, headers={"Content-Type": "application/json"})
        try_hook(stack, hook, content)
    headers: list[dict[str, str]] = [
        {"X-API-Key": typo},
        {"X-API-Key": SAID},
        {"Authorization": f"Bearer {typo}"},
        {"Idempotency-Key": f"{SAID} {SAID}"},
        {"X-Hub-Signature-256": f"sha256={SAID}"},
        {"webhook-id": f"m.{SAID}", "webhook-timestamp": "1", "webhook-signature": f"v1,{SAID}"},
        {"Content-Type": f"text/{SAID}"},
        {"Content-Encoding": SAID},
        {"X-Forwarded-For": SAID},
    ]
    for given in headers:
        stack.client.post("/v1/webhook", json=envelope("store_memory", session_id, content=SAID), headers=given)
        stack.client.get("/v1/sessions", headers=given)
    for path in (
        f"/v1/search?q={SAID}",
        f"/v1/sessions?filter={SAID}",
        f"/v1/sessions/{session_id}/memories/{SAID}",
        f"/v1/sessions/{session_id}/events?after={SAID}",
        f"/v1/deliveries?cursor={SAID}",
        f"/v1/keys?{SAID}=1",
    ):
        stack.client.get(path)
    send_to_derived_ids(stack, key)
    for path in (f"/v1/hooks/{typo}", f"//v1/hooks/{hook}", f"/v1/HOOKS/{hook}", f"/v1/hooks/{hook}/x", f"/{key}"):
        stack.client.post(path, json={SAID: SAID})
    stack.send("resume_session", session_id)
    send_signed(stack, envelope("store_memory", session_id, key="signed", content=SAID))
    send_signed(stack, {"type": "other", "text": SAID})
    stack.send("store_memory", session_id, key="before", content=SAID)
    buried = stack.try_send("store_memory", session_id, key="poison", content=SAID)
    assert buried.json()["error"]["code"] == "dead_letter"
    stack.redis.xadd("sr:inbox:03", {"e": f"no entry: {SAID}"})
    stack.wait_until_drained()
    wait_for(lambda: stack.redis.llen("sr:refusals") > 10, what="refused")
    wait_for(lambda: stack.redis.zcard("rq:failed:session-relay") == 1, what="job listed as failed")
    return [
        SAID,
        key,
        hook,
        typo,
        stack.api_key,
        PASSWORD,
        WEBHOOK_SECRET,
        WEBHOOK_SECRET.removeprefix("whsec_"),
        GITHUB,
    ]


def send_to_derived_ids(stack: Stack, key: str) -> None:
    """Send valid, refused and misspelt requests with ids that were derived from content."""
    derived = stack.send("create_session", title=f"Say {SAID}")["session_id"]
    task = stack.send("delegate_task", derived, description=f"Find {SAID}")["data"]["task_id"]
    artifact = stack.send("add_artifact", derived, name=f"On {SAID}", content="text")["data"]["artifact_id"]
    assert all(SAID in made for made in (derived, task, artifact))
    for path in (
        f"/v1/sessions/{derived}",
        f"/v1/sessions/{derived}/events",
        f"/v1/sessions/{derived}/tasks/{task}",
        f"/v1/sessions/{derived}/artifacts/{artifact}",
        f"/v1/session/{derived}/task/{task}",
        f"/sessions/{derived}",
        f"/{SAID}",
        f"/v1/deliveries/{derived}",
    ):
        for given in ({}, {"X-API-Key": key}, {"X-API-Key": "wrong"}):
            for method in ("GET", "POST"):
                stack.client.request(method, path, headers=given)
        stack.client.get(path, params={SAID: SAID})


def mcp_calls(command: str, data: Payload) -> Iterator[Payload]:
    """Yield calls that succeed, calls that fail, and invalid messages."""
    call = {"command": command, "session_id": data["session_id"], "data": data}
    yield rpc("tools/call", name="send_command", arguments=call)
    yield rpc("tools/call", name=command, arguments=data)
    yield {SAID: data}


def try_hook(stack: Stack, token: str, body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    return httpx.post(f"{stack.url}/v1/hooks/{token}?wait=20", content=content, headers=headers, timeout=60)


def require_none(text: str, sent: list[str], where: str) -> None:
    """Fail if a text contains a secret in any case, since pages and logs may change the case."""
    for secret in sent:
        found = re.search(re.escape(secret), text, re.IGNORECASE)
        assert found is None, f"{where}: …{text[max(0, found.start() - 200) : found.end() + 50]}…"


def test_no_log_shows_a_secret(talkative: Stack, sent: list[str]) -> None:
    logs = list(talkative.folder.glob("*.log"))
    assert len(logs) == 3
    for log in logs:
        text = log.read_text()
        assert text, log
        require_none(text, sent, log.name)


def test_no_job_shows_a_secret(talkative: Stack, sent: list[str]) -> None:
    keys = list(talkative.redis.scan_iter("rq:*"))
    assert any(b"rq:job:" in key for key in keys)
    for key in keys:
        require_none(repr(talkative.redis.dump(key)), sent, key.decode())
        if talkative.redis.type(key) == b"hash":
            require_none(repr(talkative.redis.hgetall(key)), sent, key.decode())


def test_no_other_key_in_redis_shows_a_secret(talkative: Stack, sent: list[str]) -> None:
    """Outcomes and unreadable entries are skipped, because they hold content by design."""
    for key in talkative.redis.scan_iter("sr:*"):
        if key.startswith((b"sr:outcome:", b"sr:unreadable", b"sr:seen:")):
            continue
        require_none(repr(talkative.redis.dump(key)), sent, key.decode())


def test_the_list_of_refusals_shows_no_secret(talkative: Stack, sent: list[str]) -> None:
    refusals = talkative.client.get("/v1/refusals", params={"limit": 500})
    assert len(refusals.json()["items"]) > 10
    require_none(refusals.text, sent, "/v1/refusals")


def test_no_page_of_the_dashboard_shows_a_secret(talkative: Stack, sent: list[str]) -> None:
    url = f"http://127.0.0.1:{talkative.environment['DASHBOARD_PORT']}"
    seen: set[str] = set()
    with httpx.Client(base_url=url, auth=("admin", PASSWORD), timeout=30, follow_redirects=True) as client:
        wait_for(lambda: client.get("/").status_code == 200, what="dashboard responding")
        job = cast("list[bytes]", talkative.redis.zrange("rq:failed:session-relay", 0, 0))[0].decode()
        ahead = [
            "/",
            "/0/view/queues",
            "/0/view/workers",
            "/0/view/jobs",
            "/0/view/jobs/session-relay/failed/8/asc/1",
            "/0/data/jobs/session-relay/failed/8/asc/1.json",
            "/0/data/jobs/session-relay/finished/8/asc/1.json",
            f"/0/view/job/{job}",
            f"/0/data/job/{job}.json",
        ]
        while ahead:
            path = ahead.pop()
            seen.add(path)
            page = client.get(path)
            assert page.status_code in (200, 404), path
            require_none(page.text, sent, path)
            links = re.findall(r'href="(/[^"#?]*)"', page.text)
            ahead += [link for link in dict.fromkeys(links) if link not in seen and "/view/" in link]
        shown = client.get(f"/0/data/job/{job}.json").text
        assert "Traceback" in shown


def test_only_the_details_of_a_dead_letter_show_its_payload(talkative: Stack, sent: list[str]) -> None:
    letters = talkative.client.get("/v1/dead-letters")
    assert len(letters.json()["items"]) == 1
    require_none(letters.text, sent, "/v1/dead-letters")
    letter = talkative.client.get(f"/v1/dead-letters/{letters.json()['items'][0]['delivery_id']}").json()
    assert SAID in json.dumps(letter["payload"])
    require_none(letter["traceback"], sent, "traceback")


def test_no_error_repeats_a_secret(talkative: Stack, sent: list[str]) -> None:
    _, key, hook, typo, *_ = sent
    answers = [
        talkative.client.post("/v1/webhook", json={}, headers={"X-API-Key": typo}),
        talkative.client.post(f"/v1/hooks/{hook}", content=b"{"),
        talkative.client.post(f"/v1/hooks/{typo}", content=b"{}"),
        talkative.client.get(f"/v1/sessions/{key}", headers={"X-API-Key": typo}),
        talkative.client.post("/v1/webhook", json={}, headers={"X-Hub-Signature-256": f"sha256={'0' * 64}"}),
    ]
    for answer in answers:
        assert answer.status_code >= 400
        require_none(answer.text, sent[1:], str(answer.url))


def test_no_command_line_shows_a_secret(talkative: Stack, sent: list[str]) -> None:
    processes = [psutil.Process(talkative.pid(name)) for name in ("api", "worker", "worker.dashboard")]
    for process in [child for parent in processes for child in (parent, *parent.children(recursive=True))]:
        require_none(" ".join(process.cmdline()), sent, process.name())


def test_the_logs_are_not_empty(talkative: Stack, sent: list[str]) -> None:
    """Otherwise the search would find nothing in any case."""
    assert "/v1/hooks/{token}" in Path(talkative.folder / "api.log").read_text()
    assert "dead letter" in talkative.log("worker")
