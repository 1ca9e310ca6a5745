"""Ends of claims: results, retries, dependent tasks, waiting requests, and the access of an agent's key meanwhile."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
from sqlalchemy import Engine

from models.queue.inbox import inbox_key, shard_of
from tests.support.clients.agents import Agent, Delegate, change_tasks, events_of, task_of
from tests.support.clients.keys import new_key
from tests.support.clients.refusals import refused
from tests.support.processes.stack import Stack, new_id, unseen_updates, wait_for


class TestResults:
    def test_output_and_artifacts_are_stored_together(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        delegate()
        task = agent.claim()
        artifacts = [
            {"name": "prices.md", "content": "# Prices", "type": "report", "metadata": {"rows": 2}},
            {"artifact_id": "raw", "name": "raw.json", "content": {"a": 1.50}},
        ]
        told = agent.perform(task, "complete", output={"cheapest": "b"}, artifacts=artifacts)
        assert (told["command"], told["status"], told["message"]) == ("complete_task", "success", 'Completed "Do t".')
        assert told["data"]["status"] == "completed"
        [update] = unseen_updates(stack.send("store_memory", session_id, content="x"))
        assert update["message"] == '"Do t" is completed.'
        shown = task_of(stack, session_id)
        assert (shown["status"], shown["output"], shown["claimed_by"]) == ("completed", {"cheapest": "b"}, agent.name)
        listed = stack.send("list_artifacts", session_id, task_id="t")["data"]["artifacts"]
        assert {item["artifact_id"] for item in listed} == set(told["data"]["artifacts"])
        raw = stack.send("get_artifact", session_id, artifact_id="raw")["data"]["artifact"]
        assert raw["content"] == {"a": 1.50}

    def test_a_repeated_completion_gets_the_same_response_and_is_stored_once(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        delegate()
        task = agent.claim()
        result = {"output": [1], "artifacts": [{"name": "a", "content": "x"}]}
        first, second = agent.perform(task, "complete", **result), agent.perform(task, "complete", **result)
        assert first == second
        assert events_of(stack, session_id).count("complete_task") == 1
        assert len(stack.send("list_artifacts", session_id)["data"]["artifacts"]) == 1
        refused(agent.try_action(task, "complete", output=[2]), 409, "task_finished")
        assert task_of(stack, session_id)["output"] == [1]

    def test_two_tasks_may_create_files_of_the_same_name(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        made: set[str] = set()
        for task_id in ("t", "u"):
            delegate(task_id=task_id)
            result = {"output": 1, "artifacts": [{"name": "notes.md", "content": "same"}]}
            made |= set(agent.perform(agent.claim(), "complete", **result)["data"]["artifacts"])
        assert len(made) == 2
        listed = stack.send("list_artifacts", session_id)["data"]["artifacts"]
        assert {item["task_id"] for item in listed} == {"t", "u"}

    def test_an_artifact_of_a_completion_is_a_revision_of_a_known_one_unless_it_was_changed(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        delegate()
        stack.send("add_artifact", session_id, artifact_id="a", name="theirs", content="theirs")
        task = agent.claim()
        mine = [{"name": "b", "content": "b"}, {"artifact_id": "a", "name": "mine", "content": "mine"}]
        conditional = [mine[0], {**mine[1], "if_revision": 0}]
        error = refused(agent.try_action(task, "complete", output=1, artifacts=conditional), 409, "revision_conflict")
        assert error["field"] == "artifacts[1].if_revision"
        assert task_of(stack, session_id)["status"] == "claimed"
        assert len(stack.send("list_artifacts", session_id)["data"]["artifacts"]) == 1
        agent.perform(task, "complete", output=1, artifacts=mine)
        read = {
            number: stack.client.get(f"/v1/sessions/{session_id}/artifacts/a?revision={number}") for number in (1, 2)
        }
        assert [answer.json()["content"] for answer in read.values()] == ["theirs", "mine"]

    def test_a_retryable_failure_is_retried_with_delay_until_the_last_attempt(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate, engine: Engine
    ) -> None:
        delegate(max_attempts=2)
        task = agent.claim()
        told = agent.perform(task, "fail", error="No network", retryable=True)
        assert told["data"]["status"] == "pending"
        assert agent.perform(task, "fail", error="No network", retryable=True) == told
        shown = task_of(stack, session_id)
        assert (shown["status"], shown["error"], shown["attempt"]) == ("pending", "No network", 1)
        seconds = (datetime.fromisoformat(shown["not_before"]) - datetime.now(UTC)).total_seconds()
        assert 0 < seconds <= 10
        assert agent.gets_no_task()
        change_tasks(engine, session_id, "not_before = now()")
        again = agent.claim()
        assert (again["attempt"], again["error"]) == (2, "No network")
        agent.perform(again, "fail", error="Still none", retryable=True)
        shown = task_of(stack, session_id)
        assert (shown["status"], shown["error"]) == ("failed", "Still none")
        refused(agent.try_action(again, "complete"), 409, "claim_lost")

    def test_a_failure_that_is_not_retryable_fails_the_task(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        delegate()
        agent.perform(agent.claim(), "fail", error="There is no such shop")
        [update] = unseen_updates(stack.send("get_session_summary", session_id))
        assert (update["status"], update["error"]) == ("failed", "There is no such shop")
        assert task_of(stack, session_id)["status"] == "failed"

    def test_an_answered_question_returns_the_task_with_the_answer(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        delegate()
        task = agent.claim()
        told = agent.perform(task, "ask", question="Which currency?")
        assert told["data"]["status"] == "input_required"
        assert agent.perform(task, "heartbeat")["status"] == "input_required"
        assert agent.gets_no_task()
        [update] = unseen_updates(stack.send("get_session_summary", session_id))
        assert (update["status"], update["question"]) == ("input_required", "Which currency?")
        stack.send("answer_task", session_id, task_id="t", answer="Euro")
        again = agent.claim()
        assert again["attempt"] == 1
        assert (again["questions"][0]["question"], again["questions"][0]["answer"]) == ("Which currency?", "Euro")
        refused(agent.try_action(task, "complete"), 409, "claim_lost")
        agent.perform(again, "complete", output="12 €")
        assert task_of(stack, session_id)["output"] == "12 €"

    def test_claims_can_be_ended_while_the_session_is_paused(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        agent.register(max_concurrent=5)
        for number in range(4):
            delegate(f"t{number}")
        tasks = [agent.claim() for _ in range(4)]
        stack.send("pause_session", session_id)
        agent.perform(tasks[0], "heartbeat")
        agent.perform(tasks[0], "complete", output=1, artifacts=[{"name": "a", "content": "x"}])
        agent.perform(tasks[1], "ask", question="Which?")
        agent.perform(tasks[2], "fail", error="No", retryable=True)
        agent.perform(tasks[3], "release")
        statuses = [task_of(stack, session_id, f"t{number}")["status"] for number in range(4)]
        assert statuses == ["completed", "input_required", "pending", "pending"]
        assert agent.gets_no_task()


class TestDependencies:
    def test_a_diamond_of_dependent_tasks_is_claimed_in_order(self, agent: Agent, delegate: Delegate) -> None:
        agent.register(max_concurrent=5)
        delegate("base", priority=-1)
        delegate("left", depends_on=["base"])
        delegate("right", depends_on=["base"])
        delegate("top", depends_on=["left", "right"], priority=9)
        base = agent.claim()
        assert base["task_id"] == "base"
        assert agent.gets_no_task()
        agent.perform(base, "complete")
        left, right = agent.claim(), agent.claim()
        assert (left["task_id"], right["task_id"]) == ("left", "right")
        agent.perform(right, "complete")
        assert agent.gets_no_task()
        agent.perform(left, "complete")
        assert agent.claim()["task_id"] == "top"

    def test_dependents_of_a_failed_task_fail_and_the_sender_gets_updates(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        delegate("base")
        delegate("next", depends_on=["base"])
        delegate("last", depends_on=["next"])
        agent.perform(agent.claim(), "fail", error="No")
        assert agent.gets_no_task()
        listed = {task["task_id"]: task for task in stack.send("list_tasks", session_id)["data"]["tasks"]}
        assert {listed[name]["status"] for name in ("base", "next", "last")} == {"failed"}
        assert listed["next"]["error"] == 'It depends on "Do base", which failed.'
        assert listed["last"]["error"] == 'It depends on "Do next", which failed.'
        told = {update["task_id"]: update for update in unseen_updates(stack.send("list_memories", session_id))}
        assert told["last"]["error"] == listed["last"]["error"]

    def test_dependents_wait_while_the_failed_task_can_be_retried(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        delegate("base", max_attempts=2)
        delegate("next", depends_on=["base"])
        agent.perform(agent.claim(), "fail", error="No", retryable=True)
        assert task_of(stack, session_id, "next")["status"] == "pending"

    def test_dependents_of_a_task_whose_lease_expired_for_good_fail(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        delegate("base", max_attempts=1)
        delegate("next", depends_on=["base"])
        agent.claim(lease_seconds=1)
        shown = stack.send("get_task", session_id, task_id="next", wait=20)
        assert shown["data"]["task"]["status"] == "failed"
        assert "depends on" in shown["data"]["task"]["error"]


class TestWaiting:
    def test_a_waiting_claim_gets_a_task_at_once(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(agent.claim, wait=20)
            stack.send("store_memory", session_id, content="Meanwhile it waits")
            began_at = time.monotonic()
            delegate()
            assert waiting.result(timeout=5)["task_id"] == "t"
            assert time.monotonic() - began_at < 2

    def test_a_waiting_claim_times_out_without_a_task(self, agent: Agent) -> None:
        began_at = time.monotonic()
        assert agent.gets_no_task(wait=1)
        assert 0.9 < time.monotonic() - began_at < 5

    def test_a_waiting_claim_gets_a_task_that_becomes_available(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        delegate("a")
        delegate("b", depends_on=["a"])
        first = agent.claim()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(agent.claim, wait=20)
            agent.perform(first, "complete")
            second = waiting.result(timeout=10)
            assert second["task_id"] == "b"
            waiting = pool.submit(agent.claim, wait=20)
            agent.perform(second, "release")
            third = waiting.result(timeout=10)
            assert third["task_id"] == "b"
            stack.send("pause_session", session_id)
            agent.perform(third, "release")
            waiting = pool.submit(agent.claim, wait=20)
            stack.send("resume_session", session_id)
            assert waiting.result(timeout=10)["task_id"] == "b"

    def test_get_task_waits_until_the_task_has_finished_or_asks_a_question(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        delegate()
        task = agent.claim()
        body = {"session_id": session_id, "task_id": "t", "wait": 20}
        with ThreadPoolExecutor(3) as pool:
            waiting = [
                pool.submit(stack.client.get, f"/v1/sessions/{session_id}/tasks/t", params={"wait": 20}),
                pool.submit(stack.client.post, "/v1/commands/get_task", json=body),
                pool.submit(stack.try_send, "get_task", session_id, task_id="t", wait=20),
            ]
            agent.perform(task, "start")
            assert not any(one.done() for one in waiting)
            agent.perform(task, "complete", output="done")
            answers = [one.result(timeout=10) for one in waiting]
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        tasks = [answers[0].json(), *(answer.json()["data"]["task"] for answer in answers[1:])]
        assert [(task["status"], task["output"]) for task in tasks] == [("completed", "done")] * 3

    def test_a_waiting_get_task_is_pushed_only_once(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        """It is read again as by GET, with the updates of the session, and marks the task as seen by its sender."""
        delegate()
        task = agent.claim()

        def pushed() -> int:
            return int(stack.redis.xinfo_stream(inbox_key(shard_of(session_id)))["entries-added"])

        before = pushed()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(stack.send, "get_task", session_id, task_id="t", wait=20)
            wait_for(lambda: pushed() == before + 1 and stack.drained(), what="first read applied")
            agent.perform(task, "complete", output="done")
            answer = waiting.result(timeout=10)
        assert pushed() == before + 2  # The read, and the completion of the task.
        assert (answer["status"], answer["command"]) == ("success", "get_task")
        assert answer["data"]["task"]["output"] == "done"
        assert [update["seen"] for update in answer["updates"] if "task_id" in update] == [True]
        assert answer["delivery_id"]

    def test_get_task_returns_the_current_task_on_timeout(
        self, stack: Stack, session_id: str, delegate: Delegate
    ) -> None:
        delegate()
        began_at = time.monotonic()
        shown = stack.client.get(f"/v1/sessions/{session_id}/tasks/t", params={"wait": 1}).json()
        assert shown["status"] == "pending"
        assert stack.send("get_task", session_id, task_id="t", wait=1)["data"]["task"]["status"] == "pending"
        assert 1.9 < time.monotonic() - began_at < 10
        unknown = stack.client.get(f"/v1/sessions/{session_id}/tasks/none", params={"wait": 20})
        refused(unknown, 404, "task_not_found")
        refused(stack.try_send("get_task", session_id, task_id="none", wait=20), 404, "task_not_found")


class TestKeys:
    def test_a_key_for_some_sessions_gets_only_their_tasks(
        self, stack: Stack, agent: Agent, delegate: Delegate
    ) -> None:
        mine = new_id("mine")
        stack.send("create_session", mine, title="Mine")
        limited = Agent(stack, agent.name, key=new_key(stack, scopes=["agent"], sessions="mine-*"))
        wait_for(lambda: limited.try_claim().status_code == 204, seconds=5)
        delegate("theirs", priority=9)
        assert limited.gets_no_task()
        stack.send("delegate_task", mine, task_id="m", description="m", agent_name=agent.name)
        task = limited.claim()
        assert task["session_id"] == mine
        limited.perform(task, "complete")
        theirs = agent.claim()
        for action in ("heartbeat", "complete"):
            error = refused(limited.try_action(theirs, action), 403, "forbidden")
            assert (error["field"], error["expected"]) == ("session_id", "a session_id that matches mine-*")

    def test_an_agent_has_access_to_a_session_only_while_it_holds_a_task_there(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate
    ) -> None:
        key = new_key(stack, scopes=["agent"])
        worker = Agent(stack, agent.name, key=key)
        wait_for(lambda: worker.try_claim().status_code == 204, seconds=5)
        other = new_id("claims")
        stack.send("create_session", other, title="Other")
        stack.send("store_memory", other, key="k", content="secret")
        headers = {"X-API-Key": key}

        def send(command: str, where: str, **data: Any) -> httpx.Response:
            path = f"/v1/commands/{command}?wait=20"
            return stack.client.post(path, json={"session_id": where, **data}, headers=headers)

        def read(path: str) -> httpx.Response:
            return stack.client.get(f"/v1/sessions/{path}", headers=headers)

        def is_refused(where: str) -> None:
            parts = ("", "/summary", "/transcript", "/memories/k", "/tasks", "/events", "/export")
            for answer in (
                send("store_memory", where, key="k", content="mine"),
                send("retrieve_memory", where, key="k"),
                send("batch", where, commands=[{"command": "retrieve_memory", "data": {"key": "k"}}]),
                *(read(where + part) for part in parts),
            ):
                error = refused(answer, 403, "forbidden")
                assert error["expected"].startswith("a key with the scope ")
                assert "holds no task" in error["message"]
                assert "secret" not in answer.text

        is_refused(session_id)
        is_refused(other)
        assert events_of(stack, other) == ["create_session", "store_memory"]
        delegate()
        task = worker.claim()
        assert send("store_memory", session_id, key="k", content="mine").json()["data"]["key"] == "k"
        assert send("retrieve_memory", session_id, key="k").json()["data"]["memory"]["content"] == "mine"
        assert send("add_artifact", session_id, name="a", content="a", task_id="t").status_code == 200
        assert read(session_id).json()["title"] == "Walk"
        assert read(f"{session_id}/memories/k").json()["content"] == "mine"
        assert read(f"{session_id}/tasks/t").json()["status"] == "claimed"
        for command, data in (
            ("delegate_task", {"description": "x"}),
            ("cancel_task", {"task_id": "t"}),
            ("delete_memory", {"key": "k"}),
            ("list_sessions", {}),
        ):
            body = {"command": command, "session_id": session_id, "data": data}
            refused(stack.client.post("/v1/webhook?wait=20", json=body, headers=headers), 403, "forbidden")
        for path in ("/v1/sessions", "/v1/search?q=x", "/v1/memories", "/v1/tasks"):
            refused(stack.client.get(path, headers=headers), 403, "forbidden")
        is_refused(other)
        worker.perform(task, "complete", output="done")
        is_refused(session_id)
