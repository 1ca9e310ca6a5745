"""A webhook can be followed through the logs of all processes by its delivery id, without its content."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from local.servers.embedded import EmbeddedServer
from tests.support.clients.signing import WEBHOOK_SECRET, send_signed
from tests.support.processes.stack import Stack, envelope, new_id, new_stack, wait_for

SAID = f"kumquat{secrets.token_hex(8)}"
"""A word in all content, and in the id of the session, which is made of its title."""


@pytest.fixture(scope="module")
def stack(postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("lines")
    with new_stack(postgres, folder, workers=2, LOG_FORMAT="json", WEBHOOK_SECRETS=f"signer={WEBHOOK_SECRET}") as stack:
        yield stack


@pytest.fixture(scope="module")
def session_id(stack: Stack) -> str:
    created: str = stack.send("create_session", title=f"Say {SAID}")["session_id"]
    assert SAID in created
    return created


def lines_of(stack: Stack, process: str, delivery_id: str) -> list[dict[str, Any]]:
    """Return a delivery's lines in the log of a process, each of which must be JSON."""
    lines = [json.loads(line) for line in stack.log(process).splitlines()]
    return [line for line in lines if line.get("delivery_id") == delivery_id]


def follow(stack: Stack, delivery_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the one line of the relay, and the one of the worker."""
    wait_for(lambda: lines_of(stack, "worker", delivery_id), what="applied line")
    wait_for(lambda: lines_of(stack, "api", delivery_id), what="accepted line")
    (accepted,), (applied,) = lines_of(stack, "api", delivery_id), lines_of(stack, "worker", delivery_id)
    return accepted, applied


def test_a_webhook_is_followed_from_its_acceptance_to_its_application(stack: Stack, session_id: str) -> None:
    delivery_id = new_id("delivery")
    began_at = datetime.now().astimezone()
    stack.post("store_memory", session_id, delivery_id=delivery_id, key="roof", content=SAID)
    accepted, applied = follow(stack, delivery_id)
    common = {
        "level": "INFO",
        "delivery_id": delivery_id,
        "source": "default",
        "command": "store_memory",
        "client": "127.0.0.1",
    }
    for line in (accepted, applied):
        assert {name: line[name] for name in common} == common
        assert began_at.timestamp() - 1 < datetime.fromisoformat(line["time"]).timestamp()
        assert line["duration_ms"] > 0
    assert accepted["logger"] == "relay.access"
    assert (accepted["outcome"], accepted["status"], accepted["path"]) == ("accepted", 202, "/v1/webhook")
    assert applied["logger"] == "worker.deliveries"
    assert (applied["outcome"], applied["status"], applied["message"]) == ("applied", 200, "store_memory applied")
    assert accepted["session"] == applied["session"]
    assert applied["duration_ms"] > accepted["duration_ms"] / 2


def test_a_rejected_command_has_its_cause(stack: Stack) -> None:
    delivery_id = new_id("delivery")
    stack.post("store_memory", "nowhere", delivery_id=delivery_id, content=SAID)
    accepted, applied = follow(stack, delivery_id)
    assert accepted["outcome"] == "accepted"
    assert (applied["outcome"], applied["status"], applied["cause"]) == ("rejected", 404, "session_not_found")


def test_a_signed_webhook_is_named_after_its_secret(stack: Stack, session_id: str) -> None:
    sent = send_signed(stack, envelope("store_memory", session_id, key="signed", content=SAID))
    for line in follow(stack, sent.json()["delivery_id"]):
        assert line["source"] == "signer"


def test_a_repeat_whose_sender_waits_is_recognized_in_both_logs(stack: Stack, session_id: str) -> None:
    delivery_id = new_id("delivery")
    for _ in range(2):
        body = envelope("store_memory", session_id, key="twice", content=SAID)
        answer = stack.client.post("/v1/webhook?wait=20", json=body, headers={"Idempotency-Key": delivery_id})
        assert answer.status_code == 200
    wait_for(lambda: len(lines_of(stack, "api", delivery_id)) == 4, what="all lines")
    outcomes = [line["outcome"] for line in lines_of(stack, "api", delivery_id)]
    assert outcomes == ["accepted", "applied", "duplicate", "applied"]
    wait_for(lambda: len(lines_of(stack, "worker", delivery_id)) == 2, what="both results")
    assert [line["outcome"] for line in lines_of(stack, "worker", delivery_id)] == ["applied", "duplicate"]


def test_a_call_of_an_mcp_tool_is_followed_too(stack: Stack, session_id: str) -> None:
    call = {"name": "store_memory", "arguments": {"session_id": session_id, "key": "mcp", "content": SAID}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    headers = {"Accept": "application/json, text/event-stream"}
    assert stack.client.post("/mcp", json=message, headers=headers).status_code == 200
    wait_for(lambda: '"path":"/mcp"' in stack.log("api"), what="logged")
    lines = [json.loads(line) for line in stack.log("api").splitlines()]
    (answered,) = [line for line in lines if line.get("path") == "/mcp"]
    wait_for(lambda: lines_of(stack, "worker", answered["delivery_id"]), what="applied line")
    (applied,) = lines_of(stack, "worker", answered["delivery_id"])
    assert (answered["outcome"], applied["outcome"]) == ("applied", "applied")
    assert (answered["client"], applied["client"]) == ("127.0.0.1", "127.0.0.1")


def test_no_line_has_content_and_each_has_the_same_first_fields(stack: Stack, session_id: str) -> None:
    delivery_id = new_id("delivery")
    stack.post("store_memory", session_id, delivery_id=delivery_id, content=SAID)
    follow(stack, delivery_id)
    for log in Path(stack.folder).glob("*.log"):
        assert SAID not in log.read_text()
        for line in log.read_text().splitlines():
            assert list(json.loads(line))[:4] == ["time", "level", "logger", "message"]
