"""Client for claiming tasks and reporting results. Each call is one request; the caller decides about retries."""

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
"""The time that a response may take beyond the requested wait."""
BEAT_SECONDS = 10.0
"""Time limit of a heartbeat; after that the next one is due."""
SUBMIT_SECONDS = 60.0
"""Time limit of a submission. Relays wait up to 40 s for it to take effect."""
PAGE = 500
MOST_PAGES = 1_000
ANSWER_BYTES = 16 * 1_048_576
"""Maximum size of a response. A task arrived in one request body of about 1 MB."""
LONGEST_TOKEN = 1_000
_LEASING = frozenset({"start", "heartbeat"})


class _ClaimedTask(msgspec.Struct):
    """The fields of a task that the runner needs; the command gets all fields."""

    task_id: str
    session_id: str
    description: str
    attempt: int
    max_attempts: int


class _AgentRecord(msgspec.Struct):
    name: str
    max_concurrent: int


class Claim:
    """A task leased to this agent. Its token grants control of the task, so it must not be shown."""

    def __init__(self, client: Client, task: dict[str, Any]) -> None:
        """Decode a claim's response. Raises NoRelay for an invalid one, after releasing the task if possible."""
        self._client = client
        token = task.pop("claim_token", None)
        if not isinstance(token, str) or not 0 < len(token) <= LONGEST_TOKEN:
            raise client.invalid_response("its response to a claim has no token")
        self._token = token
        self.task = task
        try:
            msgspec.convert(task, _ClaimedTask)
        except msgspec.ValidationError as error:
            with suppress(RelayError):
                self.release()
            raise client.invalid_response(f"its task is invalid ({error}) and was released") from error

    def __repr__(self) -> str:
        return f"Claim({self.task['session_id']!r}, {self.task['task_id']!r})"

    def start(self) -> dict[str, Any]:
        """Record that the work has begun, and extend the lease."""
        return self._act("start", {})

    def heartbeat(self, *, progress: str, percent: float | None) -> dict[str, Any]:
        """Extend the lease. `cancelled` in the response is true if the task was cancelled."""
        fields = {"progress": progress or None, "percent": percent}
        return self._act("heartbeat", {name: value for name, value in fields.items() if value is not None})

    def release(self) -> dict[str, Any]:
        """Return the task to the queue, as if it had not been claimed."""
        return self._act("release", {})

    def submit(self, action: str, body: bytes) -> dict[str, Any] | None:
        """Complete, fail or ask. Returns None if the submission is stored but has not taken effect yet. Repeatable: the
        same submission takes effect once, and returns the first result."""
        status, answer = self._post(action, body, seconds=SUBMIT_SECONDS)
        if status == HTTPStatus.ACCEPTED:
            return None
        data = answer.get("data")
        if status != HTTPStatus.OK or not isinstance(data, dict) or not isinstance(data.get("status"), str):
            raise self._client.invalid_response(f"its response to {action!r}, HTTP {status}, lacks the task's status")
        return data

    def _act(self, action: str, content: dict[str, Any]) -> dict[str, Any]:
        answer = self._post(action, msgspec.json.encode(content), seconds=BEAT_SECONDS)[1]
        if action in _LEASING and not isinstance(answer.get("cancelled"), bool):
            raise self._client.invalid_response(f"its response to {action!r} lacks `cancelled`")
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
    """Claim a task, waiting for one if necessary. Returns None without a task in time. If the response is lost, the
    lease expires."""
    fields: dict[str, Any] = {
        "agent_name": agent_name,
        "worker": worker,
        "wait": wait_seconds,
        "lease_seconds": lease_seconds,
    }
    more = {"task_types": task_types, "created_by": created_by}
    body = msgspec.json.encode(fields | {name: value for name, value in more.items() if value})
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
    """Register an agent, or update its registration."""
    fields = {"name": name, "type": type, "max_concurrent": max_concurrent, "capabilities": capabilities}
    registered = client.call(*request_to("register_agent"), body=msgspec.json.encode(fields), repeatable=True)[1]
    return _validate_agent(client, registered)


def allow(client: Client, name: str, *, concurrency: int) -> str:
    """Ensure that the agent may hold `concurrency` tasks at a time: registers an unknown agent if the key permits it.
    Returns a warning if the limit is lower, else an empty text."""
    if concurrency == 1:
        return ""
    try:
        known = find_agent(client, name)
        most = (known or register(client, name, type="general", max_concurrent=concurrency))["max_concurrent"]
    except (Forbidden, NoRelay):  # The runner can work without it.
        most = 0
    if most >= concurrency:
        return ""
    allowed = f"{name} may hold only {most}" if most else f"{name} may be allowed to hold only 1"
    return (
        f"{allowed} at a time, across all machines. To change that, run `session-cli agent register {name}"
        f" --max-concurrent {concurrency}` with a key that has the scope admin."
    )


def find_agent(client: Client, name: str) -> dict[str, Any] | None:
    """Find an agent by name, or return None."""
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = client.get(path_to("read_agents"), {"limit": PAGE, "cursor": cursor})
        items = page.get("items")
        if not isinstance(items, list):
            break
        for item in items:
            agent = _validate_agent(client, item)
            if agent["name"] == name:
                return agent
        cursor = page.get("next_cursor")
        if cursor is None:
            return None
        if not isinstance(cursor, str):
            break
    raise client.invalid_response("its list of agents is invalid")


def _validate_agent(client: Client, record: Any) -> dict[str, Any]:
    try:
        msgspec.convert(record, _AgentRecord)
    except msgspec.ValidationError as error:
        raise client.invalid_response(f"its record of an agent is invalid ({error})") from error
    agent: dict[str, Any] = record
    return agent
