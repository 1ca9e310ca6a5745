"""Recipients of task updates: each key until get_task has shown it the task, wherever it delegated the task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.support.clients.agents import Agent
from tests.support.processes.stack import Payload, Stack, new_id, wait_for

Ask = Callable[..., list[Payload]]


def as_key(stack: Stack, **fields: Any) -> Ask:
    """Create a key. Returns a function that sends commands with it and returns the updates in the response."""
    made = stack.client.post("/v1/keys", json={"name": new_id("chat"), "scopes": ["write", "delegate"], **fields})
    assert made.status_code == 201, made.text
    headers = {"X-API-Key": made.json()["key"]}

    def ask(command: str, session_id: str, **data: Any) -> list[Payload]:
        body = {"session_id": session_id, **data}
        answer = stack.client.post(f"/v1/commands/{command}", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return list(answer.json().get("updates", []))

    ask.headers = headers  # type: ignore[attr-defined]
    wait_for(lambda: stack.client.get("/v1/agents", headers=headers).status_code not in (401, 503), what="key accepted")
    return ask


@pytest.fixture
def agent(stack: Stack) -> Agent:
    worker = Agent(stack)
    worker.register()
    return worker


def brief(updates: list[Payload]) -> list[tuple[str, str, bool]]:
    return [(update["task_id"], update["status"], update.get("seen", False)) for update in updates]


def test_a_task_read_by_one_key_is_still_reported_to_another(stack: Stack, session_id: str, agent: Agent) -> None:
    phone, laptop = as_key(stack), as_key(stack)
    phone("delegate_task", session_id, task_id="t", description="Find a baker", agent_name=agent.name)
    agent.perform(agent.claim(), "complete", output="On the corner.")
    told = phone("list_memories", session_id)
    assert brief(told) == brief(laptop("list_memories", session_id)) == [("t", "completed", False)]
    phone("get_task", session_id, task_id="t")
    assert laptop("list_memories", session_id) == told
    assert phone("list_memories", session_id) == [told[0] | {"seen": True}]
    where = f"/v1/sessions/{session_id}/tasks/t"
    assert stack.client.get(where, headers=laptop.headers).status_code == 200  # type: ignore[attr-defined]
    assert brief(laptop("list_memories", session_id)) == [("t", "completed", True)]


def test_a_change_is_reported_again_to_keys_that_had_seen_the_task(stack: Stack, session_id: str, agent: Agent) -> None:
    phone, laptop = as_key(stack), as_key(stack)
    phone("delegate_task", session_id, task_id="t", description="Book a table", agent_name=agent.name)
    agent.perform(agent.claim(), "ask", question="At what time?")
    for chat in (phone, laptop):
        chat("get_task", session_id, task_id="t")
        assert brief(chat("list_memories", session_id)) == [("t", "input_required", True)]
    assert phone("answer_task", session_id, task_id="t", answer="At eight") == []
    agent.perform(agent.claim(), "fail", error="They are full.", retryable=False)
    for chat in (phone, laptop):
        assert brief(chat("list_memories", session_id)) == [("t", "failed", False)]


def test_tasks_delegated_in_other_sessions_are_summarized_in_one_line(stack: Stack, agent: Agent) -> None:
    one, other, third = (new_id(name) for name in ("bikes", "trip", "talk"))
    chat, stranger = as_key(stack), as_key(stack)
    chat("create_session", one, title="Bike rental")
    chat("create_session", other, title="Summer trip")
    chat("create_session", third, title="Just talking")
    for session_id in (one, other):
        chat("delegate_task", session_id, task_id="t", description="Compare", agent_name=agent.name)
    agent.perform(agent.claim(), "complete", output="9 EUR")
    expected = {"status": "elsewhere", "message": '1 task finished in "Bike rental".', "session_ids": [one]}
    assert chat("list_memories", third) == [expected]
    assert stranger("list_memories", third) == []
    assert brief(chat("list_memories", one)) == [("t", "completed", False)]
    agent.perform(agent.claim(), "ask", question="By train?")
    [line] = chat("list_memories", third)
    assert line["message"] == '1 task asks in "Summer trip" and 1 finished in "Bike rental".'
    assert line["session_ids"] == [other, one]
    assert chat("list_memories", one)[1]["message"] == '1 task asks in "Summer trip".'
    chat("complete_session", one)
    assert [line] == chat("list_memories", third)
    chat("get_task", one, task_id="t")
    chat("get_task", other, task_id="t")
    assert chat("list_memories", third) == []


def test_keys_get_no_updates_of_sessions_that_they_may_not_read(stack: Stack, session_id: str, agent: Agent) -> None:
    inside = new_id("team")
    limited, blind = as_key(stack, sessions="team-*"), as_key(stack, scopes=["delegate"])
    stack.send("create_session", inside, title="Team")
    limited("delegate_task", inside, task_id="mine", description="Compare", agent_name=agent.name)
    agent.perform(agent.claim(), "complete", output="1")
    blind("delegate_task", session_id, task_id="t", description="Compare", agent_name=agent.name)
    agent.perform(agent.claim(), "complete", output="1")
    stack.send("create_session", second := new_id("team"), title="Second")
    assert [update["session_ids"] for update in limited("list_memories", second)] == [[inside]]
    assert blind("delegate_task", second, description="Anything") == []
    answer: httpx.Response = stack.client.post(
        "/v1/commands/list_memories",
        json={"session_id": session_id},
        headers=limited.headers,  # type: ignore[attr-defined]
    )
    assert answer.status_code == 403
    assert "updates" not in answer.json()
