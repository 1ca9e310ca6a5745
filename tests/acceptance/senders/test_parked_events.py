"""Events for a session that accepts no changes: parked, counted on resume, and replayed or sent again."""

from __future__ import annotations

import httpx
import pytest

from tests.support.clients.keys import make_key
from tests.support.processes.command_line import CommandLine
from tests.support.processes.stack import Payload, Stack, envelope, new_id, wait_for


@pytest.fixture
def deploys(stack: Stack) -> str:
    """A session for events."""
    session_id = new_id("deploys")
    stack.send("create_session", session_id, title="Deploys")
    return session_id


def keys_in(stack: Stack, session_id: str) -> list[str]:
    return [memory["key"] for memory in stack.send("list_memories", session_id)["data"]["memories"]]


def test_events_for_a_paused_session_are_parked_and_replayed(stack: Stack, cli: CommandLine, deploys: str) -> None:
    name = new_id("railway")
    hook = make_key(stack, name, scopes=["hook"], sessions=deploys)

    def post(number: int) -> httpx.Response:
        return httpx.post(f"{stack.url}{hook['url']}?wait=20", json={"type": "deploy", "number": number}, timeout=60)

    wait_for(lambda: post(0).status_code == 200, what="hook usable")
    stack.send("pause_session", deploys)
    refused = [post(number) for number in (1, 2, 3)]
    assert [(answer.status_code, answer.json()["error"]["code"]) for answer in refused] == [(409, "session_paused")] * 3
    first, second, third = (answer.json()["delivery_id"] for answer in refused)
    query = {"source": name}
    found = stack.client.get(f"/v1/deliveries/{first}", params=query).json()
    assert (found["status"], found["error"]["error"]["hint"][:18]) == ("parked", "The event is kept:")
    assert [
        item["status"]
        for item in stack.client.get("/v1/deliveries", params={"status": "parked", **query}).json()["items"]
    ]
    assert stack.client.get("/v1/dead-letters", params={"session_id": deploys}).json()["items"] == []
    listed = cli.run("dead-letters", "list", "--parked", "--session", deploys, "--json", "id,reason").json
    assert listed == [
        {"id": each, "reason": '"Deploys" is paused and accepts no changes.'} for each in (first, second, third)
    ]
    shown = cli.run("dead-letters", "show", first, "--source", name, "--json", "payload").json
    assert shown["payload"]["content"] == {"type": "deploy", "number": 1}
    assert stack.client.get("/v1/status").json()["postgres"]["parked_events"] >= 3
    resumed = stack.send("resume_session", deploys)
    assert resumed["message"] == 'Resumed "Deploys". 3 events that arrived meanwhile are waiting to be replayed.'
    assert resumed["data"]["waiting_events"] == 3
    # One is discarded, one is sent again, and one is replayed: each takes effect at most once.
    cli.run("dead-letters", "discard", third, "--source", name, "--yes")
    assert post(2).status_code == 200
    done = cli.run("dead-letters", "replay", "--all", "--parked", "--session", deploys)
    assert done.err in ("Replayed 1 event.\n", "Replayed 2 events.\n")
    stack.wait_until_drained()
    assert post(1).status_code == post(2).status_code == 200
    assert post(3).json()["error"]["code"] == "discarded"
    stored = stack.client.get(f"/v1/sessions/{deploys}/memories").json()["items"]
    assert sorted(memory["content"]["number"] for memory in stored) == [0, 1, 2]
    assert "waiting_events" not in stack.send("resume_session", deploys)["data"]


def test_a_waiting_redelivery_gets_its_own_outcome(stack: Stack, deploys: str) -> None:
    body: Payload = {**envelope("store_memory", deploys, key="k", content=1), "id": new_id("again"), "sync": True}
    stack.send("pause_session", deploys)
    for _ in range(2):
        refused = stack.client.post("/v1/webhook", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "session_paused")
    stack.send("resume_session", deploys)
    for _ in range(2):
        assert stack.client.post("/v1/webhook", json=body).status_code == 200
    assert keys_in(stack, deploys) == ["k"]
    assert stack.client.get(f"/v1/deliveries/{body['id']}").json()["status"] == "applied"
