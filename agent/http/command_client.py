"""Sending a command so that it takes effect exactly once: under one delivery id, however often, until it is applied."""

from __future__ import annotations

import secrets
import time
from http import HTTPStatus
from typing import Any

import msgspec

from agent.http.client import Client
from agent.http.error_responses import StillPending
from models.error_parsing import parse_error
from models.errors import Rejected, RelayError
from models.routes import request_to

WAIT_SECONDS = 40
"""As long as a relay waits for an answer at most."""
PENDING_SECONDS = 60.0
"""How long to ask on for what was not applied in that time."""
POLL_SECONDS = 1.0


def new_delivery_id() -> str:
    """An id that nobody has used."""
    return f"cli-{secrets.token_hex(12)}"


def post_envelope(
    client: Client, body: bytes, *, delivery_id: str | None, wait_seconds: float | None = None
) -> tuple[int, dict[str, Any]]:
    """Post a webhook: 200 with the response, or 202 with the receipt. It is repeated when the relay is away or the
    answer got lost, which has no second effect; without a delivery id the body must have one."""
    headers = {"Idempotency-Key": delivery_id} if delivery_id else {}
    query = {"wait": f"{wait_seconds:g}"} if wait_seconds is not None else {}
    return client.call(*request_to("webhook"), query, body=body, headers=headers, repeatable=True)


def send_command(
    client: Client, command: str, data: dict[str, Any], *, session_id: str | None, delivery_id: str | None = None
) -> dict[str, Any]:
    """The response of a command that took effect. Raises the error of one that was refused, and StillPending if it is
    stored and not applied yet."""
    envelope = {"command": command, "data": data} | ({} if session_id is None else {"session_id": session_id})
    status, answer = post_envelope(
        client,
        msgspec.json.encode(envelope),
        delivery_id=delivery_id or new_delivery_id(),
        wait_seconds=WAIT_SECONDS,
    )
    return answer if status == HTTPStatus.OK else await_outcome(client, answer)


def await_outcome(client: Client, receipt: dict[str, Any]) -> dict[str, Any]:
    """The response of a command that was stored, once it is applied. Raises what send_command does."""
    ends_at = time.monotonic() + PENDING_SECONDS
    delivery_id = receipt["delivery_id"]
    while True:
        delivery = client.get(receipt["status_url"])
        if delivery["status"] != "accepted":
            return _response(delivery)
        if time.monotonic() > ends_at:
            raise StillPending(hint=f"`session-cli deliveries {delivery_id}` tells what becomes of it.")
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
    raise _refusal(delivery)


def _refusal(delivery: dict[str, Any]) -> RelayError:
    if delivery["status"] == "failed":
        return Rejected(
            "The command could not be applied.",
            code="dead_letter",
            hint=f"`session-cli dead-letters show {delivery['delivery_id']}` tells why.",
        )
    if isinstance(delivery.get("error"), dict):
        return parse_error(delivery["error"])
    return Rejected(f"The command was {delivery['status']}.")
