"""The main story of the product: a conversation delegates research, an agent on a computer does it, and the
conversation continues with the result. The agent is the one of the examples, as a real process under the runner."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.clients.agents import Agent
from tests.support.clients.keys import new_key
from tests.support.processes.command_line import CommandLine
from tests.support.processes.runners import running_agent
from tests.support.processes.stack import Payload, Stack, new_id, unseen_updates, wait_for
from tests.support.project import API_KEY, ROOT

EXAMPLE = str(ROOT / "examples" / "agents" / "compare_prices.py")
RESEARCH = "Research what competitors charge for the repair of an e-bike"
PRICES = {"Radhaus": 89.0, "Bike & Co": 72.5, "ACME Cycles": 95.5}
REPORT = f"""# {RESEARCH}

| who | price |
|---|---|
| Bike & Co | 72.50 |
| Radhaus | 89.00 |
| ACME Cycles | 95.50 |
"""
RESULT = {"cheapest": "Bike & Co", "price": 72.5, "average": 85.67, "compared": 3}


@pytest.fixture
def stack(any_stack: Stack) -> Stack:
    """The processes, with a pooler in front of Postgres."""
    return any_stack


@pytest.fixture
def cli(stack: Stack, tmp_path: Path) -> CommandLine:
    """session-cli on the agent's computer."""
    return CommandLine(tmp_path, RELAY_URL=stack.url, API_KEY=API_KEY)


@pytest.fixture
def session_id(stack: Stack) -> str:
    """A conversation that has begun."""
    session_id = new_id("story")
    stack.send("create_session", session_id, title="Prices of competitors", participants=["Anna", "Claude"])
    return session_id


@contextmanager
def listening(stack: Stack, session_id: str) -> Iterator[list[Payload]]:
    """Listen to the session's events within the block. Yields the list of events received so far."""
    heard: list[Payload] = []
    client = stack.new_client()
    is_open = threading.Event()

    def listen() -> None:
        headers = {"Accept": "text/event-stream"}
        try:
            with client.stream("GET", f"/v1/sessions/{session_id}/events", headers=headers) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                is_open.set()
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        heard.append(json.loads(line.removeprefix("data: ")))
                        if heard[-1]["event"] == "complete_task":
                            return
        except httpx.HTTPError:
            pass  # The test has ended.

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    assert is_open.wait(10)
    try:
        yield heard
    finally:
        client.close()
        listener.join(20)


def test_the_result_is_stored_and_a_listener_is_notified(stack: Stack, session_id: str, cli: CommandLine) -> None:
    name = new_id("researcher")
    with (
        running_agent(cli, "--agent", name, "--type", new_id("type"), command=[EXAMPLE]),
        listening(stack, session_id) as heard,
    ):
        receipt = stack.post(
            "delegate_task",
            session_id,
            task_id="prices",
            agent_name=name,
            task_type="research",
            description=RESEARCH,
            input_data={"prices": PRICES},
        )
        assert receipt["status"] == "accepted"
        wait_for(lambda: heard and heard[-1]["event"] == "complete_task", what="event of the result")
    told = [(event["event"], event["data"].get("task_id")) for event in heard]
    assert told == [
        ("create_session", None),
        *((event, "prices") for event in ("delegate_task", "claim_task", "start_task", "complete_task")),
    ]
    assert heard[-1]["message"] == f'Completed "{RESEARCH}".'

    task = stack.client.get(f"/v1/sessions/{session_id}/tasks/prices").json()
    assert (task["status"], task["attempt"], task["claimed_by"]) == ("completed", 1, name)
    assert task["output"] == RESULT
    [artifact] = stack.client.get(f"/v1/sessions/{session_id}/artifacts").json()["items"]
    assert (artifact["name"], artifact["type"], artifact["format"]) == ("prices.md", "document", "markdown")
    assert artifact["task_id"] == "prices"
    whole = stack.client.get(f"/v1/sessions/{session_id}/artifacts/{artifact['artifact_id']}").json()
    assert whole["content"] == REPORT
    bundle = stack.send("resume_bundle", session_id)["data"]
    assert "prices.md" in json.dumps(bundle["artifacts"])


def test_without_a_listener_the_result_comes_with_a_later_response(
    stack: Stack, session_id: str, cli: CommandLine
) -> None:
    name = new_id("researcher")

    def ask(command: str, **data: object) -> Payload:
        answer = stack.client.post(f"/v1/commands/{command}", json={"session_id": session_id, **data})
        assert answer.status_code == 200, answer.text
        told: Payload = answer.json()
        return told

    delegated = ask("delegate_task", description=RESEARCH, agent_name=name, input_data={"prices": PRICES})
    task_id = delegated["data"]["task_id"]
    assert delegated["data"]["agents_online"] == 0
    assert unseen_updates(delegated) == []
    with running_agent(cli, "--agent", name, "--type", new_id("type"), command=[EXAMPLE]) as runner:
        runner.wait_for_event("finished")
    for _ in range(2):  # The update is repeated until the task has been read.
        answer = ask("store_memory", type="note", content="Meanwhile we spoke of colours.")
        [update] = unseen_updates(answer)
        assert (update["task_id"], update["status"]) == (task_id, "completed")
        assert update["message"] == f'"{RESEARCH}" is completed.'
    task = ask("get_task", task_id=task_id, wait=20)["data"]["task"]
    assert (task["status"], task["output"]) == ("completed", RESULT)
    assert unseen_updates(ask("list_memories")) == []
    [artifact] = ask("list_artifacts", task_id=task_id)["data"]["artifacts"]
    shown = ask("get_artifact", artifact_id=artifact["artifact_id"])["data"]["artifact"]
    assert shown["content"] == REPORT


def test_an_agent_asks_a_question_and_continues_with_the_answer(
    stack: Stack, session_id: str, cli: CommandLine
) -> None:
    name = new_id("researcher")
    with running_agent(cli, "--agent", name, "--type", new_id("type"), command=[EXAMPLE]) as runner:
        stack.send("delegate_task", session_id, task_id="prices", description=RESEARCH, agent_name=name)
        asking = stack.send("get_task", session_id, task_id="prices", wait=20)["data"]["task"]
        assert asking["status"] == "input_required"
        assert asking["question"].startswith("Which prices are to be compared?")
        stack.send("answer_task", session_id, task_id="prices", answer=json.dumps(PRICES))
        runner.wait_for_event("finished")
        done = stack.send("get_task", session_id, task_id="prices", wait=20)["data"]["task"]
    assert (done["status"], done["output"]) == ("completed", RESULT)
    assert [event["event"] for event in runner.events] == ["claimed", "asked", "claimed", "finished"]


def test_resuming_the_latest_session_reports_its_finished_tasks(stack: Stack, session_id: str) -> None:
    key = new_key(stack, scopes=["write"], sessions=session_id)
    agent = Agent(stack)
    agent.register()
    stack.send("delegate_task", session_id, task_id="t", description=RESEARCH, agent_name=agent.name)
    agent.perform(agent.claim(), "complete", output="9 EUR")

    def resume() -> Payload:
        answer = stack.client.post("/v1/commands/resume_bundle", json={}, headers={"X-API-Key": key})
        assert answer.status_code == 200, answer.text
        told: Payload = answer.json()
        return told

    told = wait_for(resume, what="key accepted", seconds=10)
    assert told["data"]["session"]["session_id"] == session_id
    assert [(update["task_id"], update["status"]) for update in unseen_updates(told)] == [("t", "completed")]
    stack.send("get_task", session_id, task_id="t")
    assert unseen_updates(resume()) == unseen_updates(told)
    shown = stack.client.get(f"/v1/sessions/{session_id}/tasks/t", headers={"X-API-Key": key})
    assert shown.json()["output"] == "9 EUR"
    assert unseen_updates(resume()) == []
