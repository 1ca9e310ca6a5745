"""Claims over HTTP: which task an agent gets, and how it keeps or loses it."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.support.clients.agents import Agent, Delegate, change_tasks, events_of, task_of
from tests.support.clients.refusals import refused
from tests.support.processes.stack import Payload, Stack, new_id, unseen_updates, wait_for
from tests.support.project import IS_LONG

RUNS = 3 if IS_LONG else 1
TASKS = 500 if IS_LONG else 200
"""The number of races."""


BUSY_AGENT = """
import os, time, httpx
client = httpx.Client(base_url=os.environ["URL"], headers={"X-API-Key": os.environ["API_KEY"]})
asked = {"agent_name": os.environ["AGENT"], "lease_seconds": 3}
token = client.post("/v1/tasks/claim", json=asked).json()["claim_token"]
print(token, flush=True)
for percent in range(100):
    client.post(f"/v1/claims/{token}/heartbeat", json={"percent": percent}).raise_for_status()
    time.sleep(0.5)
"""
"""A process that claims a task with a lease of 3 seconds, and keeps the claim."""


class TestClaiming:
    def test_a_claimed_task_is_complete_and_has_a_token(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        delegate(input_data={"products": ["a", "b"], "n": 1.50}, priority=3, max_attempts=2)
        before = datetime.now(UTC)
        task = agent.claim(worker="laptop", lease_seconds=90)
        assert task["claim_token"].startswith("srt_")
        assert (task["session_id"], task["session_title"], task["task_id"]) == (session_id, "Walk", "t")
        assert task["title"] == "Do t"
        assert (task["description"], task["input_data"]) == ("Do t", {"products": ["a", "b"], "n": 1.50})
        assert (task["attempt"], task["max_attempts"], task["priority"]) == (1, 2, 3)
        assert (task["created_by"], task["questions"], task["depends_on"]) == ("default", [], [])
        lease = datetime.fromisoformat(task["lease_expires_at"]) - before
        assert timedelta(seconds=85) < lease < timedelta(seconds=95)
        shown = task_of(stack, session_id)
        assert (shown["status"], shown["claimed_by"], shown["attempt"]) == ("claimed", agent.name, 1)
        assert "claim_token" not in shown
        assert agent.gets_no_task()
        assert events_of(stack, session_id) == ["create_session", "delegate_task", "claim_task"]

    def test_tasks_are_claimed_by_priority_and_then_age(self, agent: Agent, delegate: Delegate) -> None:
        for task_id, priority in (("low", -5), ("high", 9), ("first", 0), ("second", 0)):
            delegate(task_id, priority=priority)
        order = []
        for _ in range(4):
            task = agent.claim()
            order.append(task["task_id"])
            agent.perform(task, "complete")
        assert order == ["high", "first", "second", "low"]

    def test_an_agent_gets_its_own_tasks_and_unassigned_ones_of_its_type(
        self, stack: Stack, session_id: str, agent: Agent
    ) -> None:
        kind = new_id("kind")
        agent.register(type=kind, max_concurrent=9)

        def send(task_id: str, **fields: Any) -> None:
            stack.send("delegate_task", session_id, task_id=task_id, description=task_id, **fields)

        send("for-another", agent_name=new_id("other"), task_type=kind)
        send("another-kind", task_type=new_id("kind"))
        send("kind", task_type=kind)
        send("named", agent_name=agent.name, task_type="whatever")
        send("urgent", task_type=kind, priority=1)
        assert [agent.claim()["task_id"] for _ in range(3)] == ["urgent", "kind", "named"]
        assert agent.gets_no_task()

    def test_a_claim_can_be_limited_to_types_and_a_sender(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        kind = new_id("kind")
        stack.send("delegate_task", session_id, task_id="k", description="k", task_type=kind)
        assert agent.gets_no_task(task_types=[new_id("kind")])
        assert agent.gets_no_task(task_types=[kind], created_by=new_id("somebody"))
        assert agent.claim(task_types=["x", kind], created_by="default")["task_id"] == "k"

    def test_deferred_blocked_and_paused_tasks_cannot_be_claimed(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate, engine: Engine
    ) -> None:
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        delegate("later", not_before=later)
        delegate("walls")
        delegate("roof", depends_on=["walls"])
        stack.send("pause_session", session_id)
        assert agent.gets_no_task()
        stack.send("resume_session", session_id)
        walls = agent.claim()
        assert walls["task_id"] == "walls"
        assert agent.gets_no_task()
        agent.perform(walls, "complete")
        roof = agent.claim()
        assert roof["task_id"] == "roof"
        agent.perform(roof, "complete")
        assert agent.gets_no_task()
        change_tasks(engine, session_id, "not_before = now() - interval '1 second'")
        assert agent.claim()["task_id"] == "later"

    def test_an_unknown_agent_is_registered_and_gets_one_task_at_a_time(self, stack: Stack, session_id: str) -> None:
        agent, own = Agent(stack), {"task_types": [new_id("kind")]}
        for task_id in ("a", "b"):
            stack.send("delegate_task", session_id, task_id=task_id, description=task_id, agent_name=agent.name)
        first = agent.claim(**own)
        assert agent.gets_no_task(**own)
        known = {item["name"]: item for item in stack.client.get("/v1/agents", params={"limit": 500}).json()["items"]}
        me = known[agent.name]
        assert (me["type"], me["max_concurrent"], me["online"], me["holding"]) == ("general", 1, True, 1)
        assert me["holds"][0]["task_id"] == first["task_id"]
        agent.perform(first, "complete")
        assert agent.claim(**own)["task_id"] == "b"

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({}, "agent_name"),
            ({"agent_name": "../x"}, "agent_name"),
            ({"agent_name": "a", "wait": 41}, "wait"),
            ({"agent_name": "a", "lease_seconds": 0}, "lease_seconds"),
            ({"agent_name": "a", "lease_seconds": 3601}, "lease_seconds"),
            ({"agent_name": "a", "task_types": []}, "task_types"),
            ({"agent_name": "a", "tasks": 1}, "tasks"),
        ],
    )
    def test_a_claim_out_of_range_is_refused(self, stack: Stack, fields: Payload, field: str) -> None:
        answer = stack.client.post("/v1/tasks/claim", json=fields)
        assert answer.status_code == 422
        assert answer.json()["error"]["field"] == field


class TestRaces:
    @pytest.mark.parametrize("run", range(RUNS))
    def test_64_racing_agents_claim_all_tasks_once_each_within_their_limits(
        self, stack: Stack, session_id: str, run: int
    ) -> None:
        kind = new_id("kind")
        agents = [Agent(stack) for _ in range(8)]
        limits = {agent.name: 1 + number % 4 for number, agent in enumerate(agents)}
        for agent in agents:
            agent.register(type=kind, max_concurrent=limits[agent.name])
        tasks = [
            {
                "command": "delegate_task",
                "data": {"task_id": f"t{number}", "description": f"{number}", "task_type": kind},
            }
            for number in range(TASKS)
        ]
        stack.send("batch", session_id, commands=tasks)
        holding = dict.fromkeys(limits, 0)
        exceeded: list[str] = []
        claimed: list[str] = []

        def work(number: int) -> None:
            agent = agents[number % len(agents)]
            misses = 0
            while misses < 3 and len(claimed) < TASKS:
                answer = agent.try_claim(wait=1)
                if answer.status_code == 204:
                    misses += 1
                    continue
                assert answer.status_code == 200, answer.text
                task = answer.json()
                claimed.append(task["task_id"])
                # By the responses: a claim counts until the response to its completion.
                holding[agent.name] += 1
                if holding[agent.name] > limits[agent.name]:
                    exceeded.append(agent.name)
                holding[agent.name] -= 1
                agent.perform(task, "complete", output=number)

        with ThreadPoolExecutor(64) as pool:
            list(pool.map(work, range(64)))
        assert sorted(claimed) == sorted(f"t{number}" for number in range(TASKS))
        assert exceeded == []
        listed = stack.client.get(f"/v1/sessions/{session_id}/tasks", params={"limit": 500}).json()["items"]
        assert {(task["status"], task["attempt"]) for task in listed} == {("completed", 1)}
        # By the journal: a task is held between claim and completion.
        held, by = dict.fromkeys(limits, 0), {}
        for event in stack.journal(session_id):
            task_id = event["data"].get("task_id")
            if event["event"] == "claim_task":
                by[task_id] = event["message"].partition(" ")[0]
                held[by[task_id]] += 1
                assert held[by[task_id]] <= limits[by[task_id]]
            elif event["event"] == "complete_task":
                held[by[task_id]] -= 1


class TestLeases:
    def test_any_call_extends_the_lease_and_a_heartbeat_reports_progress(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate, engine: Engine
    ) -> None:
        delegate()
        task = agent.claim(lease_seconds=100)
        for action in ("heartbeat", "start"):
            change_tasks(engine, session_id, "lease_expires_at = now() + interval '50 seconds'")
            told = agent.perform(task, action)
            left = datetime.fromisoformat(told["lease_expires_at"]) - datetime.now(UTC)
            assert timedelta(seconds=90) < left <= timedelta(seconds=101), action
        told = agent.perform(task, "heartbeat", progress="Read two of five pages", percent=40, lease_seconds=300)
        assert (told["status"], told["cancelled"], told["attempt"]) == ("running", False, 1)
        assert datetime.fromisoformat(told["lease_expires_at"]) > datetime.now(UTC) + timedelta(seconds=290)
        shown = task_of(stack, session_id)
        assert (shown["status"], shown["progress"]["text"], shown["progress"]["percent"]) == (
            "running",
            "Read two of five pages",
            40,
        )
        assert events_of(stack, session_id)[-2:] == ["claim_task", "start_task"]

    def test_a_task_with_an_expired_lease_is_requeued_and_claimed_by_another(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        delegate()
        lost = agent.claim(lease_seconds=1)
        again = agent.claim(wait=10)
        assert (again["task_id"], again["attempt"]) == ("t", 2)
        assert events_of(stack, session_id)[-3:] == ["claim_task", "return_task", "claim_task"]
        for action, fields in (
            ("heartbeat", {}),
            ("start", {}),
            ("release", {}),
            ("complete", {"output": 1}),
            ("fail", {"error": "x"}),
            ("ask", {"question": "x"}),
        ):
            assert refused(agent.try_action(lost, action, **fields), 409, "claim_lost")["hint"]
        agent.perform(again, "complete", output="by the second")
        assert task_of(stack, session_id)["output"] == "by the second"

    def test_the_task_of_a_killed_agent_is_reclaimed_within_the_lease_and_5_seconds(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        delegate()
        environment = {**stack.environment, "URL": stack.url, "AGENT": agent.name}
        process = subprocess.Popen((sys.executable, "-c", BUSY_AGENT), env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        token = process.stdout.readline().decode().strip()
        wait_for(
            lambda: task_of(stack, session_id).get("progress", {}).get("percent", 0) >= 3, what="heartbeats received"
        )
        assert agent.gets_no_task(wait=4)  # Heartbeats extend the lease.
        process.kill()
        process.wait()
        process.stdout.close()
        killed_at = time.monotonic()
        again = agent.claim(wait=20)
        assert time.monotonic() - killed_at < 3 + 5
        assert (again["task_id"], again["attempt"]) == ("t", 2)
        refused(agent.try_action(token, "complete", output="by the first"), 409, "claim_lost")
        agent.perform(again, "complete", output="by the second")
        shown = task_of(stack, session_id)
        assert (shown["status"], shown["output"], shown["attempt"]) == ("completed", "by the second", 2)

    def test_a_token_works_after_its_lease_while_the_task_is_unclaimed(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        delegate("a")
        delegate("b")
        task = agent.claim(lease_seconds=1)
        wait_for(lambda: task_of(stack, session_id, "a")["status"] == "pending", what="task requeued")
        told = agent.perform(task, "heartbeat")
        assert (told["status"], told["attempt"]) == ("claimed", 1)
        agent.perform(task, "complete", output=1)
        second = agent.claim(lease_seconds=1)
        wait_for(lambda: task_of(stack, session_id, "b")["status"] == "pending", what="task requeued")
        agent.perform(second, "complete", output=2)
        assert task_of(stack, session_id, "b")["output"] == 2

    def test_a_task_whose_leases_expire_fails_after_its_last_attempt(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        delegate(max_attempts=1)
        task = agent.claim(lease_seconds=1)
        wait_for(lambda: "return_task" in events_of(stack, session_id), what="task requeued")
        [update] = unseen_updates(stack.send("get_session_summary", session_id))
        assert (update["task_id"], update["status"]) == ("t", "failed")
        assert "stopped responding" in task_of(stack, session_id)["error"]
        # A slow agent may still complete it.
        agent.perform(task, "complete", output="late")
        shown = task_of(stack, session_id)
        assert (shown["status"], shown["output"]) == ("completed", "late")
        assert "error" not in shown

    def test_a_released_task_is_claimed_again_without_losing_an_attempt(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        delegate()
        task = agent.claim()
        assert agent.perform(task, "release")["status"] == "pending"
        refused(agent.try_action(task, "complete"), 409, "claim_lost")
        again = agent.claim()
        assert (again["task_id"], again["attempt"]) == ("t", 1)
        assert again["claim_token"] != task["claim_token"]

    def test_the_holder_is_told_that_its_task_was_cancelled(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        delegate()
        task = agent.claim()
        stack.send("cancel_task", session_id, task_id="t", reason="Not needed")
        told = agent.perform(task, "heartbeat")
        assert (told["status"], told["cancelled"], told["lease_expires_at"]) == ("cancelled", True, None)
        refused(agent.try_action(task, "complete", output=1), 409, "task_cancelled")
        assert task_of(stack, session_id)["status"] == "cancelled"
        delegate("next")
        assert agent.claim()["task_id"] == "next"

    @pytest.mark.parametrize("token", ["x", "srt_" + "x" * 40, "srt_" + "x" * 40 + "~a~b~c"])
    def test_an_invalid_token_is_not_found(self, agent: Agent, token: str) -> None:
        assert refused(agent.try_action(token, "heartbeat"), 404, "unknown_claim")["hint"]

    def test_a_token_of_another_task_is_refused(self, agent: Agent, delegate: Delegate, session_id: str) -> None:
        delegate("a")
        delegate("b")
        secret = agent.claim()["claim_token"].split("~")[0]
        for action in ("heartbeat", "complete"):
            refused(agent.try_action(f"{secret}~{session_id}~b", action), 409, "claim_lost")
            refused(agent.try_action(f"{secret}~{new_id('nowhere')}~b", action), 409, "claim_lost")

    def test_a_made_up_claim_leaves_no_event_in_the_journal(
        self, stack: Stack, agent: Agent, delegate: Delegate, session_id: str
    ) -> None:
        delegate()
        before = stack.journal(session_id)
        for number, action in enumerate(("complete", "fail", "ask", "heartbeat", "start", "release")):
            fields = {"fail": {"error": "x"}, "ask": {"question": "x"}}.get(action, {})
            for task_id in ("t", "no-such-task"):
                forged = f"srt_{str(number) * 40}~{session_id}~{task_id}"
                refused(agent.try_action(forged, action, **fields), 409, "claim_lost")
        assert stack.journal(session_id) == before
