"""The common form of refused commands, for tests that expect it."""

from __future__ import annotations

import httpx

from tests.support.processes.stack import Payload


def refused(answer: httpx.Response, status: int, code: str) -> Payload:
    """Return the error of a response to a refused command, in its common form."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    if "type" in body:
        assert body["status"] == "error"
        assert body["message"] == body["error"]["message"]
    error: Payload = body["error"]
    assert error["code"] == code, error
    assert error["message"]
    assert error["retryable"] is False
    return error
