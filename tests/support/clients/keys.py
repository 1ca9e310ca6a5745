"""Keys that tests make over HTTP."""

from __future__ import annotations

from tests.support.processes.stack import Payload, Stack, new_id


def make_key(stack: Stack, name: str = "", **fields: object) -> Payload:
    """Make a key over HTTP."""
    answer = stack.client.post("/v1/keys", json={"name": name or new_id("key"), "scopes": ["write"], **fields})
    assert answer.status_code == 201, answer.text
    body: Payload = answer.json()
    return body


def new_key(stack: Stack, name: str = "", **fields: object) -> str:
    """Create a key for the test. Returns its secret."""
    return str(make_key(stack, name, **fields)["key"])
