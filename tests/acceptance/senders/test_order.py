"""Commands of one session take effect in the order in which they were accepted, each exactly once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from local.servers.embedded import EmbeddedServer
from tests.support.processes.stack import Payload, Stack, envelope, in_parallel, new_id, new_stack, wait_for
from tests.support.project import IS_LONG

MEMORIES = 100 if IS_LONG else 15
"""Of each session whose webhooks are sent three times."""
SESSIONS = 50 if IS_LONG else 20
"""Sessions whose order is checked: several of them share a shard."""
REVISIONS = 40 if IS_LONG else 25
"""Changes of a memory in each."""


@pytest.fixture
def wide(postgres: EmbeddedServer, folder: Path) -> Iterator[Stack]:
    """A stack with four worker processes."""
    with new_stack(postgres, folder, workers=4) as stack:
        yield stack


def test_many_sessions_keep_their_order_with_four_workers(wide: Stack) -> None:
    sessions = [new_id("order") for _ in range(SESSIONS)]
    commands: list[tuple[str, Payload]] = [
        ("create_session", {"title": "Order"}),
        *(("store_memory", {"key": "count", "content": number}) for number in range(1, REVISIONS + 1)),
        ("pause_session", {}),
        ("store_memory", {"key": "refused", "content": "too late"}),
        ("resume_session", {}),
        ("complete_session", {}),
    ]

    def play(session_id: str) -> list[str]:
        with wide.new_client() as client:
            ids = []
            for command, data in commands:
                answer = client.post("/v1/webhook", json=envelope(command, session_id, **data))
                assert answer.status_code == 202, answer.text
                ids.append(answer.json()["delivery_id"])
            return ids

    accepted = dict(zip(sessions, in_parallel(play, sessions, threads=SESSIONS), strict=True))
    wide.wait_until_drained()
    for session_id in sessions:
        journal = wide.journal(session_id)
        assert [event["delivery_id"] for event in journal] == accepted[session_id]
        assert [event["event"] for event in journal] == [command for command, _ in commands]
        refused = [event for event in journal if event["status"] != "applied"]
        assert [(event["event"], event["data"]["code"]) for event in refused] == [("store_memory", "session_paused")]
        memory = wide.send("retrieve_memory", session_id, key="count")["data"]["memory"]
        assert (memory["revision"], memory["content"]) == (REVISIONS, REVISIONS)


def test_webhooks_sent_three_times_take_effect_once(stack: Stack) -> None:
    sessions = [new_id("once") for _ in range(10)]
    for session_id in sessions:
        stack.send("create_session", session_id, title="Once")
    bodies = [
        (f"{session_id}-{number}", envelope("store_memory", session_id, key=f"k{number}", content=number))
        for session_id in sessions
        for number in range(MEMORIES)
    ]

    def send_all(client: httpx.Client) -> list[bool]:
        duplicates = []
        for delivery_id, body in bodies:
            answer = client.post("/v1/webhook", json=body, headers={"Idempotency-Key": delivery_id})
            assert answer.status_code == 202, answer.text
            duplicates.append(answer.json()["duplicate"])
        return duplicates

    clients = [stack.new_client() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(send_all, clients))
    for client in clients:
        client.close()
    assert sum(not duplicate for duplicates in answers for duplicate in duplicates) == len(bodies)
    stack.wait_until_drained()
    for session_id in sessions:
        events = [event for event in stack.journal(session_id) if event["event"] == "store_memory"]
        assert len(events) == MEMORIES
        assert {event["status"] for event in events} == {"applied"}
        assert stack.client.get(f"/v1/sessions/{session_id}").json()["stats"]["memories"] == MEMORIES


def test_the_same_id_with_another_body_is_a_conflict_even_much_later(stack: Stack) -> None:
    session_id, delivery_id = new_id(), new_id("delivery")
    stack.send("create_session", session_id, title="Conflict")
    headers = {"Idempotency-Key": delivery_id}
    first, other = (envelope("store_memory", session_id, key="k", content=text) for text in ("one", "two"))

    def answer(body: Payload, query: str = "") -> httpx.Response:
        return stack.client.post(f"/v1/webhook{query}", json=body, headers=headers)

    assert answer(first, "?wait=30").json()["status"] == "success"
    for query in ("", "?wait=30"):
        refused = answer(other, query)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "delivery_conflict")
    assert stack.redis.delete(f"sr:seen:default:{delivery_id}") == 1
    refused = answer(other, "?wait=30")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "delivery_conflict")
    again = answer(first, "?wait=30")
    assert (again.status_code, again.json()["data"]["revision"]) == (200, 1)
    assert stack.redis.delete(f"sr:seen:default:{delivery_id}") == 1
    assert answer(other).status_code == 202
    found = wait_for(
        lambda: (d := stack.client.get(f"/v1/deliveries/{delivery_id}").json()).get("conflicts") == 2 and d,
        what="recorded as a conflict",
    )
    assert found["status"] == "applied"
    memory = stack.send("retrieve_memory", session_id, key="k")["data"]["memory"]
    assert (memory["content"], memory["revision"]) == ("one", 1)
