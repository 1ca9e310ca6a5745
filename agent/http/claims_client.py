"""The relay's queue of tasks as an agent sees it: claims, and what is done with a claim. Each call is one request; what
to do when the relay is away is decided by whoever works.
"""

from __future__ import annotations

from contextlib import suppress
from http import HTTPStatus
from typing import Any

import msgspec

from agent.http.client import Client
from agent.http.error_responses import NoRelay
from models.errors import Forbidden, RelayError
from models.routes import path_to, request_to

ANSWER_MARGIN_SECONDS = 15.0
"""How much later than the relay promised an answer may come."""
BEAT_SECONDS = 10.0
"""A heartbeat that takes longer than this is given up, as the next one is due."""
SUBMIT_SECONDS = 60.0
"""Relays wait 40 s for what ends a task to take effect."""
PAGE = 500
MOST_PAGES = 1_000
ANSWER_BYTES = 16 * 1_048_576
"""Of one answer; a task is what was sent in one body, and that has about a megabyte."""
LONGEST_TOKEN = 1_000
_LEASING = frozenset({"start", "heartbeat"})


class _ClaimedTask(msgspec.Struct):
    """What is needed of a task; the command gets all of it."""

    task_id: str
    session_id: str
    description: str
    attempt: int
    max_attempts: int


class _AgentRecord(msgspec.Struct):
    name: str
    max_concurrent: int


class Claim:
    """A task that is this agent's until its lease ends. Who has its token has the task: it is shown to nobody."""

    def __init__(self, client: Client, task: dict[str, Any]) -> None:
        """Read an answer to a claim. Raises NoRelay for an invalid one, after giving back what it may have claimed."""
        self._client = client
        token = task.pop("claim_token", None)
        if not isinstance(token, str) or not 0 < len(token) <= LONGEST_TOKEN:
            raise client.odd("its answer to a claim has no token")
        self._token = token
        self.task = task
        try:
            msgspec.convert(task, _ClaimedTask)
        except msgspec.ValidationError as error:
            with suppress(RelayError):
                self.release()
            raise client.odd(f"the task that it hands out is invalid ({error}), and was given back") from error

    def __repr__(self) -> str:
        return f"Claim({self.task['session_id']!r}, {self.task['task_id']!r})"

    def start(self) -> dict[str, Any]:
        """Note that the work has begun; extends the lease."""
        return self._act("start", {})

    def heartbeat(self, *, progress: str, percent: float | None) -> dict[str, Any]:
        """Extend the lease; tells with `cancelled` whether there is still a reason to work."""
        told = {"progress": progress or None, "percent": percent}
        return self._act("heartbeat", {name: value for name, value in told.items() if value is not None})

    def release(self) -> dict[str, Any]:
        """Put the task back into the queue, as if it had not been claimed."""
        return self._act("release", {})

    def submit(self, action: str, body: bytes) -> dict[str, Any] | None:
        """Complete, fail or ask; None if it is safely stored and has not taken effect yet. The same again is no second
        one, and tells what became of the first."""
        status, answer = self._post(action, body, seconds=SUBMIT_SECONDS)
        if status == HTTPStatus.ACCEPTED:
            return None
        data = answer.get("data")
        if status != HTTPStatus.OK or not isinstance(data, dict) or not isinstance(data.get("status"), str):
            raise self._client.odd(f"its answer to {action!r}, HTTP {status}, does not say what became of the task")
        return data

    def _act(self, action: str, content: dict[str, Any]) -> dict[str, Any]:
        answer = self._post(action, msgspec.json.encode(content), seconds=BEAT_SECONDS)[1]
        if action in _LEASING and not isinstance(answer.get("cancelled"), bool):
            raise self._client.odd(f"its answer to {action!r} does not say whether the task is cancelled")
        return answer

    def _post(self, action: str, body: bytes, *, seconds: float) -> tuple[int, dict[str, Any]]:
        return self._client.call(
            *request_to(f"{action}_claim", claim_token=self._token),
            body=body,
            silence_seconds=seconds,
            whole_seconds=ANSWER_MARGIN_SECONDS,
            most_bytes=ANSWER_BYTES,
        )


def claim(
    client: Client,
    *,
    agent_name: str,
    worker: str,
    wait_seconds: float,
    lease_seconds: int,
    task_types: tuple[str, ...] = (),
    created_by: str | None = None,
) -> Claim | None:
    """Wait so long for a task, and take it; None if there was none. If the answer is lost, its lease ends by itself."""
    asked: dict[str, Any] = {
        "agent_name": agent_name,
        "worker": worker,
        "wait": wait_seconds,
        "lease_seconds": lease_seconds,
    }
    more = {"task_types": task_types, "created_by": created_by}
    body = msgspec.json.encode(asked | {name: value for name, value in more.items() if value})
    status, task = client.call(
        *request_to("claim_task"),
        body=body,
        silence_seconds=wait_seconds + ANSWER_MARGIN_SECONDS,
        whole_seconds=ANSWER_MARGIN_SECONDS,
        most_bytes=ANSWER_BYTES,
    )
    return None if status == HTTPStatus.NO_CONTENT else Claim(client, task)


def register(
    client: Client, name: str, *, type: str, max_concurrent: int, capabilities: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Make an agent known, or change what is known of it."""
    asked = {"name": name, "type": type, "max_concurrent": max_concurrent, "capabilities": capabilities}
    known = client.call(*request_to("register_agent"), body=msgspec.json.encode(asked), repeatable=True)[1]
    return _agent(client, known)


def allow(client: Client, name: str, *, concurrency: int) -> str:
    """See to it that the agent may hold so many tasks at a time: an unknown one is registered so, if the key allows
    that. Gives what somebody should know who wanted that and does not get it, else nothing."""
    if concurrency == 1:
        return ""
    try:
        known = find_agent(client, name)
        most = (known or register(client, name, type="general", max_concurrent=concurrency))["max_concurrent"]
    except (Forbidden, NoRelay):  # The work does not depend on it.
        most = 0
    if most >= concurrency:
        return ""
    allowed = f"{name} may hold {most} of them" if most else f"It may be that {name} may hold 1 of them"
    return (
        f"{allowed} at a time, on all machines together. With a key that has the scope admin, `session-cli agent"
        f" register {name} --max-concurrent {concurrency}` changes that."
    )


def find_agent(client: Client, name: str) -> dict[str, Any] | None:
    """What is known of an agent, or None."""
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = client.get(path_to("read_agents"), {"limit": PAGE, "cursor": cursor})
        items = page.get("items")
        if not isinstance(items, list):
            break
        for item in items:
            agent = _agent(client, item)
            if agent["name"] == name:
                return agent
        cursor = page.get("next_cursor")
        if cursor is None:
            return None
        if not isinstance(cursor, str):
            break
    raise client.odd("its list of agents is invalid")


def _agent(client: Client, told: Any) -> dict[str, Any]:
    try:
        msgspec.convert(told, _AgentRecord)
    except msgspec.ValidationError as error:
        raise client.odd(f"what it says of an agent is not valid ({error})") from error
    agent: dict[str, Any] = told
    return agent
