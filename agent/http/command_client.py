"""Sends commands so that they take effect exactly once: retries under one delivery id until the command is applied."""

from __future__ import annotations

import secrets
import time
from http import HTTPStatus
from typing import Any

import msgspec

from agent.http.client import ATTEMPTS, Client
from agent.http.error_responses import StillPending
from models.error_parsing import parse_error
from models.errors import Rejected, RelayError, TooManyRequests
from models.routes import request_to

WAIT_SECONDS = 40
"""The longest time that a relay waits for a response."""
PENDING_SECONDS = 60.0
"""Additional time of polling for a command that was not applied by then."""
POLL_SECONDS = 1.0


def new_delivery_id() -> str:
    """Create a random delivery id."""
    return f"cli-{secrets.token_hex(12)}"


def post_envelope(
    client: Client, body: bytes, *, delivery_id: str | None, wait_seconds: float | None = None
) -> tuple[int, dict[str, Any]]:
    """Post a webhook. Returns 200 with the response, or 202 with the receipt. Retries when the relay is unavailable or
    the response was lost; retries have no second effect. Without `delivery_id` the body must contain one."""
    headers = {"Idempotency-Key": delivery_id} if delivery_id else {}
    query = {"wait": f"{wait_seconds:g}"} if wait_seconds is not None else {}
    return client.call(*request_to("webhook"), query, body=body, headers=headers, repeatable=True)


def send_command(
    client: Client, command: str, data: dict[str, Any], *, session_id: str | None, delivery_id: str | None = None
) -> dict[str, Any]:
    """Send a command and return its response. Repeats a command that could not be applied for lack of time or memory.
    Raises the error of a rejected command, and StillPending if the command is stored but not applied yet."""
    envelope = {"command": command, "data": data} | ({} if session_id is None else {"session_id": session_id})
    body = msgspec.json.encode(envelope)
    delivery_id = delivery_id or new_delivery_id()
    attempts_left = ATTEMPTS
    while True:
        status, answer = post_envelope(client, body, delivery_id=delivery_id, wait_seconds=WAIT_SECONDS)
        if status == HTTPStatus.OK:
            return answer
        try:
            return await_outcome(client, answer)
        except TooManyRequests as error:
            attempts_left -= 1
            if not (error.retryable and attempts_left):
                raise
            time.sleep(error.retry_after_seconds)


def await_outcome(client: Client, receipt: dict[str, Any]) -> dict[str, Any]:
    """Wait until a stored command is applied and return its response. Raises the same errors as send_command."""
    ends_at = time.monotonic() + PENDING_SECONDS
    delivery_id = receipt["delivery_id"]
    while True:
        delivery = client.get(receipt["status_url"])
        if delivery["status"] != "accepted":
            return _response(delivery)
        if time.monotonic() > ends_at:
            raise StillPending(hint=f"`session-cli deliveries {delivery_id}` shows its status.")
        time.sleep(POLL_SECONDS)


def _response(delivery: dict[str, Any]) -> dict[str, Any]:
    if delivery["status"] == "applied":
        response: dict[str, Any] = delivery.get("result") or {
            **{name: delivery.get(name) for name in ("command", "session_id", "delivery_id")},
            "status": "success",
            "message": "Applied.",
            "data": {},
        }
        return response
    raise _error_of(delivery)


def _error_of(delivery: dict[str, Any]) -> RelayError:
    if delivery["status"] == "failed":
        return Rejected(
            "The command could not be applied.",
            code="dead_letter",
            hint=f"`session-cli dead-letters show {delivery['delivery_id']}` shows the error.",
        )
    if isinstance(delivery.get("error"), dict):
        return parse_error(delivery["error"])
    return Rejected(f"The command was {delivery['status']}.")
