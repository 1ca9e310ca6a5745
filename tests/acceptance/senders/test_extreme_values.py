"""Extreme values from a read-only key, by GET, as commands and over MCP: none causes a server error or a dead
letter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api.openapi.document import build_document
from tests.support.clients.keys import new_key
from tests.support.clients.mcp import HEADERS
from tests.support.clients.permissions import fill, request_as
from tests.support.inputs import extremes
from tests.support.processes.stack import Payload, Stack, envelope, in_parallel, new_id, wait_for
from tests.support.project import IS_LONG

FORGED = [*extremes.CURSORS[::9], extremes.make_cursor("0001-01-01T00:00:00+23:59")]
BY_NAME: dict[str, tuple[str, ...]] = {
    "cursor": tuple(FORGED),
    "after": (*FORGED[::4], "9" * 19, "9" * 2_000, "-1", "٣"),
    "since": extremes.TIMES,
    "until": extremes.TIMES,
    "timezone": extremes.ZONES,
    "q": extremes.QUERIES[::3],  # The conformance tests try all of them.
    "wait": ("-1", "1e9", "nan", "0.0000000000000000001"),
}
ANY: tuple[str, ...] = (
    "",
    "0",
    "-1",
    "9" * 19,
    "9" * 5_000,
    "1e308",
    "nan",
    "\0",
    "\ud7ff",
    "%00",
    "\uffff" * 256,
    "true",
    "[]",
)
ACCOMPANYING = {"/v1/search": {"q": "a"}, "/v1/sessions/{session_id}/events": {"wait": "0"}}
STEP, SENT, CALLED, WRITTEN = (1, 3, 19, 1) if IS_LONG else (5, 7, 37, 5)
"""The steps between values of parameters, between reads as a command and over MCP, and between changes. The conformance
tests try every one."""

LARGEST = 4
"""The last changes have the largest values, and are all sent."""


@pytest.fixture(scope="module")
def session_id(stack: Stack) -> str:
    """A session with one item of each kind."""
    session_id = new_id("extreme")
    stack.send("create_session", session_id, title="Extreme")
    stack.send("conversation_chunk", session_id, content="a 漢字", chunk_id="c")
    stack.send("store_memory", session_id, key="k", content="a note")
    stack.send("delegate_task", session_id, task_id="t", description="a task", agent_name=new_id("agent"))
    stack.send("add_artifact", session_id, artifact_id="a", name="a", content="a")
    return session_id


@pytest.fixture(scope="module")
def reader(stack: Stack) -> str:
    """A read-only key."""
    key = new_key(stack, name=new_id("reader"), scopes=["read"])
    wait_for(lambda: request_as(stack, key, "GET", "/v1/sessions").status_code == 200, seconds=5)
    return key


@pytest.fixture(scope="module")
def earlier(stack: Stack) -> set[str]:
    """The dead letters of earlier tests."""
    return dead_letters(stack)


def gets(session_id: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Every parameter of every GET with each of its extreme values."""
    for path, operations in build_document()["paths"].items():
        for parameter in operations.get("get", {}).get("parameters", []):
            name = parameter["name"]
            for value in BY_NAME.get(name, ANY):
                if parameter["in"] == "query":
                    yield fill(path, session_id).partition("?")[0], {**ACCOMPANYING.get(path, {}), name: value}


def is_fault(answer: httpx.Response) -> bool:
    return answer.status_code >= 500 and answer.json()["error"]["code"] != "too_slow"


def test_no_parameter_of_a_get_causes_a_server_error(stack: Stack, session_id: str) -> None:
    asked = list(gets(session_id))[::STEP]
    assert len({path for path, _ in asked}) > 15
    answers = in_parallel(lambda one: stack.client.get(one[0], params=one[1]), asked, threads=4)
    wrong = [f"{one} {answer.text}" for one, answer in zip(asked, answers, strict=True) if is_fault(answer)]
    assert not wrong, "\n".join(wrong)


def test_no_read_command_causes_a_server_error_or_dead_letter(
    stack: Stack, session_id: str, earlier: set[str], reader: str
) -> None:
    reads = [*extremes.known_faults(), *extremes.lists(session_id)[::SENT], *extremes.reads(session_id)]
    bodies = [envelope(command, about, **data) for command, about, data in reads]
    answers = in_parallel(lambda body: request_as(stack, reader, "POST", "/v1/webhook", json=body), bodies, threads=4)
    wrong = [f"{body} {a.text}" for body, a in zip(bodies, answers, strict=True) if is_fault(a)]
    assert not wrong, "\n".join(wrong)
    assert dead_letters(stack) <= earlier


def test_no_write_causes_a_server_error_or_dead_letter(stack: Stack, session_id: str, earlier: set[str]) -> None:
    writes = extremes.writes(session_id)
    chosen = [*writes[:-LARGEST:WRITTEN], *writes[-LARGEST:]]
    bodies = [envelope(command, about, **data) for command, about, data in chosen]
    answers = in_parallel(lambda body: stack.client.post("/v1/webhook", json=body), bodies, threads=4)
    wrong = [f"{body} {a.text}" for body, a in zip(bodies, answers, strict=True) if is_fault(a)]
    assert not wrong, "\n".join(wrong)
    assert dead_letters(stack) <= earlier


def test_no_mcp_call_causes_a_server_error_or_dead_letter(
    stack: Stack, session_id: str, earlier: set[str], reader: str
) -> None:
    reads = extremes.known_faults() + [*extremes.lists(session_id), *extremes.reads(session_id)][::CALLED]
    calls = [call(command, {"session_id": about, **data} if about else data) for command, about, data in reads]
    answers = in_parallel(
        lambda body: stack.client.post("/mcp", json=body, headers={**HEADERS, "X-API-Key": reader}), calls, threads=4
    )
    for body, answer in zip(calls, answers, strict=True):
        assert answer.status_code == 200, f"{body} {answer.text}"
        assert '"internal"' not in answer.text, f"{body} {answer.text}"
        assert "dead_letter" not in answer.text, f"{body} {answer.text}"
    assert dead_letters(stack) <= earlier


def call(command: str, arguments: dict[str, Any]) -> Payload:
    params = {"name": "send_command", "arguments": {"command": command, "data": arguments}}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


def dead_letters(stack: Stack) -> set[str]:
    stack.wait_until_drained()
    return {item["delivery_id"] for item in stack.client.get("/v1/dead-letters?limit=500").json()["items"]}
