"""Irregular requests at a hook: handshakes, forms, URL parameters, extra slashes, and odd bodies."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from tests.support.clients.keys import make_key
from tests.support.processes.stack import Payload, Stack, new_id, wait_for

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
TOKEN = "this-is-secret-9b1d"


class Hook:
    """A hook with its session."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.session_id = new_id("events")
        stack.send("create_session", self.session_id, title="Events")
        self.path = str(make_key(stack, new_id("hook"), scopes=["hook"], sessions=self.session_id)["url"])
        wait_for(lambda: self.request("HEAD").status_code == 200, what="hook usable")

    def request(self, method: str, more: str = "", **how: Any) -> httpx.Response:
        """Send a request to the hook's URL."""
        return httpx.request(method, f"{self._stack.url}{self.path}{more}", timeout=60, **how)

    def post(self, content: Any, more: str = "?wait=20", **headers: str) -> httpx.Response:
        """Post text or bytes."""
        return self.request("POST", more, content=content, headers={"Content-Type": "application/json", **headers})

    def stored(self) -> list[Payload]:
        """Return the contents of all memories, the oldest first."""
        items = self._stack.client.get(f"/v1/sessions/{self.session_id}/memories").json()["items"]
        return [item["content"] for item in reversed(items)]


@pytest.fixture(scope="module")
def hook(stack: Stack) -> Hook:
    """The hook that all tests here share."""
    return Hook(stack)


def test_handshakes_are_answered_and_nothing_is_stored(stack: Stack) -> None:
    hook = Hook(stack)
    slack = hook.post('{"token": "x", "challenge": "3eZbrw1a", "type": "url_verification"}', "")
    assert (slack.status_code, slack.json()) == (200, {"challenge": "3eZbrw1a"})
    microsoft = hook.request("POST", "?validationToken=Validation%3A+a%26b%3Cscript%3E")
    assert (microsoft.status_code, microsoft.text) == (200, "Validation: a&b<script>")
    assert microsoft.headers["content-type"] == "text/plain; charset=utf-8"
    assert microsoft.headers["x-content-type-options"] == "nosniff"
    trello = hook.request("HEAD")
    assert (trello.status_code, trello.content) == (200, b"")
    assert httpx.head(f"{stack.url}/v1/hooks/srh_none").status_code == 404
    assert httpx.post(f"{stack.url}/v1/hooks/srh_none", params={"validationToken": "x"}).text != "x"
    assert hook.request("GET").status_code == 405
    assert hook.stored() == []


def test_a_form_is_stored_as_an_object_of_its_fields(hook: Hook) -> None:
    before = len(hook.stored())
    assert hook.post(urlencode({"command": "/weather", "text": "Köln & so"}), **FORM).status_code == 200
    assert hook.post(urlencode({"payload": '{"type": "block_actions"}'}), **FORM).status_code == 200
    assert hook.post('{"sent": "by curl -d"}', **FORM).status_code == 200
    assert hook.stored()[before:] == [
        {"command": "/weather", "text": "Köln & so"},
        {"payload": {"type": "block_actions"}},
        {"sent": "by curl -d"},
    ]
    hostile = hook.post("a=1&" * 5_000, **FORM)
    assert (hostile.status_code, hostile.json()["error"]["expected"]) == (422, "at most 1,000 fields")


def test_url_parameters_are_stored_with_the_event_and_not_logged(stack: Stack, hook: Hook) -> None:
    before = len(hook.stored())
    answer = hook.post('{"type": "up"}', f"?secret={TOKEN}&wait=20&x=1&x=2")
    assert (answer.status_code, answer.json()["status"]) == (200, "success")
    assert hook.post(b"", "?event=ping&wait=20").status_code == 200
    kept = [{"query": {"secret": TOKEN, "x": ["1", "2"]}, "body": {"type": "up"}}, {"query": {"event": "ping"}}]
    assert hook.stored()[before:] == kept
    # With a body, the validation token is part of the event.
    assert hook.post("{}", "?validationToken=t&wait=20").json()["status"] == "success"
    wrong = hook.post("{}", "?wait=soon")
    assert (wrong.status_code, wrong.json()["error"]["field"]) == (422, "wait")
    assert TOKEN not in stack.log("api") + stack.log("worker")


def test_odd_bodies_are_stored_as_they_came(hook: Hook) -> None:
    before = len(hook.stored())
    assert hook.post(b'\xef\xbb\xbf{"marked": 1}').status_code == 200
    assert hook.post('{"a": 1, "a": 2}').status_code == 200
    assert hook.post('{"bytes": 1}', **{"Content-Type": "application/octet-stream"}).status_code == 200
    assert hook.stored()[before:] == [{"marked": 1}, {"a": 2}, {"bytes": 1}]
    assert "half of a surrogate pair" in hook.post('{"a": "\\ud83d"}').json()["error"]["message"]


def test_slashes_and_blanks_after_the_token_are_ignored(stack: Stack, hook: Hook) -> None:
    for more in ("/?wait=20", "//?wait=20", "%20?wait=20", "%0A?wait=20"):
        assert hook.post("{}", more).status_code == 200, more
    assert hook.path.rpartition("_")[2] not in stack.log("api")


def test_the_mcp_server_also_responds_with_a_trailing_slash(stack: Stack) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    headers = {"Accept": "application/json, text/event-stream"}
    answers = [stack.client.post(path, json=body, headers=headers) for path in ("/mcp", "/mcp/", "/mcp//")]
    assert [answer.status_code for answer in answers] == [answers[0].status_code] * 3
    assert answers[0].content == answers[1].content == answers[2].content
