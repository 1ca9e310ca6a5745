"""Servers that are down and workers that are killed: nothing is lost, and nothing is applied twice."""

from __future__ import annotations

import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import cast

import httpx
import psutil

from local.servers.embedded import EmbeddedServer
from models.queue.job_queue import open_queue
from tests.support.clients.agents import Agent, task_of
from tests.support.processes.stack import Payload, Stack, envelope, in_parallel, new_id, new_stack, wait_for
from tests.support.project import IS_LONG

FAILPOINTS = ("after_read", "before_commit", "after_commit", "after_delete")
ROUNDS = 100 if IS_LONG else 26
"""Commands of each session."""
LATE = 100 if IS_LONG else 60
"""Commands of each session while Postgres is down: more than a page of deliveries shows."""
DOWN_SECONDS = 30 if IS_LONG else 5


def test_a_result_sent_while_postgres_is_down_is_applied_when_it_is_back(
    own_stack: Stack, own_postgres: EmbeddedServer
) -> None:
    stack, session_id = own_stack, new_id("offline")
    agent = Agent(stack)
    stack.send("create_session", session_id, title="Offline")
    stack.send("delegate_task", session_id, task_id="t", description="Look it up", agent_name=agent.name)
    task = agent.claim(lease_seconds=1)
    own_postgres.pause()
    assert agent.try_claim().status_code == 503
    assert agent.try_action(task, "heartbeat").status_code == 503
    with ThreadPoolExecutor(1) as pool:
        completing = pool.submit(agent.try_action, task, "complete", output="found")
        wait_for(lambda: not stack.drained(), what="in the inbox")
        own_postgres.restart()
        answer = completing.result(timeout=40)
    assert (answer.status_code, answer.json()["status"]) == (200, "success")
    shown = task_of(stack, session_id)
    assert (shown["status"], shown["output"], shown["attempt"]) == ("completed", "found", 1)


def test_webhooks_are_accepted_while_postgres_is_down_and_applied_when_it_is_back(
    own_stack: Stack, own_postgres: EmbeddedServer
) -> None:
    stack = own_stack
    sessions = [new_id("offline") for _ in range(5)]
    for session_id in sessions:
        stack.send("create_session", session_id, title="Offline")
    own_postgres.pause()
    down_since = time.monotonic()
    accepted: dict[str, list[str]] = {session_id: [] for session_id in sessions}
    for number in range(LATE):
        for session_id in sessions:
            receipt = stack.post("store_memory", session_id, key=f"k{number}", content=number)
            accepted[session_id].append(receipt["delivery_id"])
    for session_id, ids in accepted.items():
        for delivery_id in ids if IS_LONG else ids[::10]:
            status = stack.client.get(f"/v1/deliveries/{delivery_id}").json()
            assert (status["status"], status["session_id"]) == ("accepted", session_id)
    waiting = stack.client.get("/v1/deliveries", params={"status": "accepted", "session_id": sessions[0]}).json()
    assert [item["delivery_id"] for item in waiting["items"]] == accepted[sessions[0]][:-51:-1]
    answer = stack.client.get(f"/v1/sessions/{sessions[0]}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    pending = stack.client.post("/v1/webhook?wait=1", json=envelope("list_memories", sessions[0]))
    assert (pending.status_code, pending.json()["status"]) == (202, "pending")
    assert stack.client.get("/readyz").json()["postgres"] == "unavailable"
    wait_for(lambda: time.monotonic() - down_since > DOWN_SECONDS, seconds=60)
    own_postgres.restart()
    stack.wait_until_drained(seconds=10)
    wait_for(lambda: stack.client.get("/readyz").json()["postgres"] == "ok", what="reads served")
    for session_id, ids in accepted.items():
        stored = [event for event in stack.journal(session_id) if event["event"] == "store_memory"]
        assert [event["delivery_id"] for event in stored] == ids
        assert {event["status"] for event in stored} == {"applied"}
    assert open_queue(stack.redis).failed_job_registry.count == 0
    log = stack.log("worker")
    assert "waits. Postgres cannot be used: " in log
    assert "Traceback" not in log


def test_workers_killed_at_failpoints_lose_and_repeat_nothing(postgres: EmbeddedServer, folder: Path) -> None:
    with new_stack(postgres, folder, workers=2) as stack:
        _drain_under_fire(stack, [folder / "failpoints" / name for name in FAILPOINTS] * (2 if IS_LONG else 1))


def _drain_under_fire(stack: Stack, failpoints: list[Path]) -> None:
    sessions = [new_id("killed") for _ in range(20 if IS_LONG else 10)]
    for session_id in sessions:
        stack.send("create_session", session_id, title="Killed")
    stop = threading.Event()
    killer = threading.Thread(target=_kill_at_random, args=(stack, failpoints, stop))
    killer.start()
    accepted: dict[str, list[str]] = {session_id: [] for session_id in sessions}

    def play(session_id: str) -> None:
        with stack.new_client() as client:
            for number in range(ROUNDS):
                body = envelope("store_memory", session_id, key="count", content=number)
                if number % 25 == 0:
                    answer = client.post("/v1/webhook?wait=30", json=body)
                    accepted[session_id].append(answer.json()["delivery_id"])
                    assert _outcome(client, answer)["data"]["revision"] == number + 1
                else:
                    answer = client.post("/v1/webhook", json=body)
                    assert answer.status_code == 202, answer.text
                    accepted[session_id].append(answer.json()["delivery_id"])

    list(in_parallel(play, sessions, threads=10))
    stop.set()
    killer.join()
    stack.wait_until_drained()
    for session_id, ids in accepted.items():
        stored = [event for event in stack.journal(session_id) if event["event"] == "store_memory"]
        assert [event["delivery_id"] for event in stored] == ids
        assert {event["status"] for event in stored} == {"applied"}
        memory = stack.send("retrieve_memory", session_id, key="count")["data"]["memory"]
        assert (memory["content"], memory["revision"]) == (ROUNDS - 1, ROUNDS)
    assert stack.log("worker").count("SIGKILL") >= len(failpoints)
    wait_for(lambda: len(stack.workers()) == 2, what="both workers running")
    wait_for(
        lambda: open_queue(stack.redis).failed_job_registry.count == 0, seconds=90, what="no abandoned drains left"
    )


def _outcome(client: httpx.Client, answer: httpx.Response) -> Payload:
    """Return the outcome of a command, with a long timeout: the supervisor delays workers that die repeatedly."""
    assert answer.status_code in (200, 202), answer.text
    if answer.status_code == 200:
        return cast("Payload", answer.json())
    assert answer.json()["status"] == "pending"
    path = f"/v1/deliveries/{answer.json()['delivery_id']}"
    return wait_for(lambda: cast("Payload", client.get(path).json()["result"]), seconds=120, what="applied")


def _kill_at_random(stack: Stack, failpoints: list[Path], stop: threading.Event) -> None:
    """Arm one failpoint after the other, and kill a worker at a random moment in between."""
    chance = random.Random(7)
    for failpoint in failpoints:
        failpoint.touch()
        wait_for(partial(_is_gone, failpoint, stop), seconds=60, what="killed")
        if failpoint.exists():
            stack.post("create_session", new_id("bait"), title="One more drain, for the failpoint")
            wait_for(partial(_is_gone, failpoint), seconds=60, what="killed")
        if victims := stack.workers():
            with suppress(psutil.NoSuchProcess):  # It may have reached a failpoint meanwhile.
                chance.choice(victims).send_signal(signal.SIGKILL)


def _is_gone(failpoint: Path, stop: threading.Event | None = None) -> bool:
    return not failpoint.exists() or (stop is not None and stop.is_set())


def test_a_restart_of_the_processes_resumes_every_session(postgres: EmbeddedServer, folder: Path) -> None:
    with new_stack(postgres, folder) as stack:
        session_id = new_id("restart")
        stack.send("create_session", session_id, title="Before")
        stack.send("store_memory", session_id, key="k", content="kept", type="decision")
        stack.stop("worker")
        receipt = stack.post("store_memory", session_id, key="late", content="accepted while no worker ran")
        stack.kill("api")
        stack.start()
        stack.wait_until_drained()
        assert stack.client.get(f"/v1/deliveries/{receipt['delivery_id']}").json()["status"] == "applied"
        found = stack.send("query_memories", session_id)["data"]["memories"]
        assert {memory["key"]: memory["content"] for memory in found} == {
            "k": "kept",
            "late": "accepted while no worker ran",
        }
