"""Stores the corpus and asks the questions, over HTTP like any other client."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import httpx

from bench.search.evaluation import LIMIT, Outcome, Question, judge
from models.field_types import BATCH_LIMIT, MAX_WAIT_SECONDS

AGENT = "bench-search"
ENDS = {"output": "complete", "error": "fail", "question": "ask"}
"""How an agent ends its work, by what a task of the corpus has."""
PENDING_FIELD = "not_embedded"
"""Field of a search's answer with the number of texts whose meaning is not indexed yet; absent if there are none."""
WAIT_SECONDS = 1_800.0
POLL_SECONDS = 0.5
ATTEMPTS = 10
"""Searches are repeated, because the relay cancels slow ones, which a busy machine may have."""


def load(client: httpx.Client, corpus: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Store everything, and let an agent work on the tasks. Raises RuntimeError if a command fails."""
    for item in corpus["sessions"]:
        send(client, "create_session", item)
    for command, group in (
        ("store_memory", "memories"),
        ("conversation_chunk", "chunks"),
        ("add_artifact", "artifacts"),
    ):
        send_all(client, command, corpus[group])
    for task in corpus["tasks"]:
        _work(client, task)


def send_all(client: httpx.Client, command: str, items: Iterable[Mapping[str, Any]]) -> None:
    """Send a command for each item, in batches by session."""
    sessions = defaultdict(list)
    for item in items:
        data = {name: value for name, value in item.items() if name != "session_id"}
        sessions[item["session_id"]].append({"command": command, "data": data})
    for session_id, commands in sessions.items():
        for start in range(0, len(commands), BATCH_LIMIT):
            part = commands[start : start + BATCH_LIMIT]
            send(client, "batch", {"session_id": session_id, "commands": part})


def ask(client: httpx.Client, questions: Iterable[Question]) -> list[Outcome]:
    """Search for each question in all sessions."""
    return [judge(question, _search(client, question.q, limit=LIMIT)["hits"]) for question in questions]


def wait_until_searchable(client: httpx.Client, *, by_meaning: bool) -> None:
    """Wait until the search knows the meaning of all texts, if it should. Raises RuntimeError on timeout."""
    limit_at = time.monotonic() + WAIT_SECONDS
    while True:
        answer = _search(client, "ready", limit=1)
        if not by_meaning or (answer["method"] == "hybrid" and not answer.get(PENDING_FIELD)):
            return
        if time.monotonic() > limit_at:
            raise RuntimeError(f"{answer.get(PENDING_FIELD)} texts were not embedded within {WAIT_SECONDS:.0f} s.")
        time.sleep(POLL_SECONDS)


def send(client: httpx.Client, command: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Run a command and return its response. Raises RuntimeError if it does not succeed."""
    return _post(client, f"/v1/commands/{command}?wait={MAX_WAIT_SECONDS:.0f}", body)


def _search(client: httpx.Client, q: str, *, limit: int, attempts: int = ATTEMPTS) -> dict[str, Any]:
    try:
        data: dict[str, Any] = send(client, "search", {"q": q, "limit": limit})["data"]
    except RuntimeError as error:
        if "too_slow" not in str(error) or attempts == 1:
            raise
        return _search(client, q, limit=limit, attempts=attempts - 1)
    return data


def _work(client: httpx.Client, task: Mapping[str, Any]) -> None:
    ((field, value),) = [(name, task[name]) for name in ENDS if name in task]
    delegated = {name: task[name] for name in task if name != field}
    send(client, "delegate_task", {**delegated, "agent_name": AGENT, "max_attempts": 1})
    claim = _post(client, "/v1/tasks/claim", {"agent_name": AGENT, "wait": 30})
    _post(client, f"/v1/claims/{claim['claim_token']}/{ENDS[field]}", {field: value})


def _post(client: httpx.Client, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    response = client.post(path, json=body)
    if response.status_code != httpx.codes.OK:
        raise RuntimeError(f"{path} returned {response.status_code}: {response.text}")
    answer: dict[str, Any] = response.json()
    if answer.get("status") == "error" or answer.get("data", {}).get("failed"):
        raise RuntimeError(f"{path} failed: {response.text}")
    return answer
