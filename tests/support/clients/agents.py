"""Agents as tests play them: claims over HTTP, and actions on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from sqlalchemy import Engine, text

from tests.support.processes.stack import Payload, Stack, new_id


class Agent:
    """One agent with a key: the stack's, unless another is given."""

    def __init__(self, stack: Stack, name: str = "", *, key: str = "") -> None:
        self.stack = stack
        self.name = name or new_id("agent")
        self._headers = {"X-API-Key": key} if key else {}

    def register(self, **fields: Any) -> None:
        """Register the agent, by default with a type of its own and one task at a time."""
        body = {"name": self.name, "type": f"type-of-{self.name}", **fields}
        answer = self.stack.client.post("/v1/agents", json=body)
        assert answer.status_code == 200, answer.text

    def try_claim(self, **fields: Any) -> httpx.Response:
        """Claim a task. Returns any response."""
        return self.stack.client.post(
            "/v1/tasks/claim", json={"agent_name": self.name, **fields}, headers=self._headers
        )

    def claim(self, **fields: Any) -> Payload:
        """Claim a task, which must exist."""
        answer = self.try_claim(**fields)
        assert answer.status_code == 200, (answer.status_code, answer.text)
        task: Payload = answer.json()
        return task

    def gets_no_task(self, **fields: Any) -> bool:
        """Claim a task. Returns whether there was none."""
        answer = self.try_claim(**fields)
        assert answer.status_code in (200, 204), answer.text
        return answer.status_code == 204

    def try_action(self, task: Payload | str, action: str, **fields: Any) -> httpx.Response:
        """Send an action on a claim. Returns any response."""
        token = task if isinstance(task, str) else task["claim_token"]
        return self.stack.client.post(f"/v1/claims/{token}/{action}", json=fields, headers=self._headers)

    def perform(self, task: Payload | str, action: str, **fields: Any) -> Payload:
        """Send an action on a claim, which must succeed. Returns the response's body."""
        answer = self.try_action(task, action, **fields)
        assert answer.status_code == 200, (answer.status_code, answer.text)
        told: Payload = answer.json()
        return told


Delegate = Callable[..., Payload]
"""Delegates a task to the test's agent. Returns the data of the response."""


def delegating(stack: Stack, session_id: str, agent: Agent) -> Delegate:
    """Return a function that delegates tasks of the session to the agent."""

    def send(task_id: str = "t", description: str = "", **fields: Any) -> Payload:
        asked = {"agent_name": agent.name, "description": description or f"Do {task_id}", **fields}
        data: Payload = stack.send("delegate_task", session_id, task_id=task_id, **asked)["data"]
        return data

    return send


def task_of(stack: Stack, session_id: str, task_id: str = "t") -> Payload:
    """Return the current task."""
    task: Payload = stack.client.get(f"/v1/sessions/{session_id}/tasks/{task_id}").json()
    return task


def events_of(stack: Stack, session_id: str) -> list[str]:
    """Return the names of the events in the session's journal, in order."""
    return [event["event"] for event in stack.journal(session_id)]


def change_tasks(engine: Engine, session_id: str, changes: str) -> None:
    """Change the session's tasks by SQL, such as their times."""
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE tasks SET {changes} WHERE session_id = :id"), {"id": session_id})
