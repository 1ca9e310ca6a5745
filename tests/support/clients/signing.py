"""Webhooks signed as their senders sign them, with secrets that the relay knows."""

from __future__ import annotations

import base64
import hmac
import json
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
from standardwebhooks import Webhook

from tests.support.processes.serving import Serving
from tests.support.processes.stack import Payload, Stack, new_id

WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
GITHUB_SECRET = "a-secret-of-github"


def sign(body: bytes, id: str = "msg-1", *, secret: str = WEBHOOK_SECRET, at: float | None = None) -> dict[str, str]:
    """Return the headers of a valid signature, by default as of now."""
    timestamp = str(int(time.time() if at is None else at))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{id}.{timestamp}.".encode() + body, "sha256")
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signature}


def post_signed(relay: Serving, value: Any, id: str = "msg-1", path: str = "/v1/webhook", **how: Any) -> httpx.Response:
    """Post a value with a valid signature, and the relay's key."""
    body = msgspec.json.encode(value)
    return relay.post(body, path, **sign(body, id, **how))


def send_github(relay: Serving, body: bytes, *, event: str, id: str = "72d3162e-cc78") -> httpx.Response:
    """Post bytes as GitHub."""
    digest = hmac.digest(GITHUB_SECRET.encode(), body, "sha256").hex()
    headers = {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Event": event, "X-GitHub-Delivery": id}
    return relay.post(body, **headers)


def send_signed(stack: Stack, body: Payload, *, secret: str = WEBHOOK_SECRET, wait: float = 0) -> httpx.Response:
    """Post a signed webhook to a stack, with the library that senders use."""
    content = json.dumps(body)
    message, at = new_id("msg"), datetime.now(UTC)
    headers = {
        "webhook-id": message,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message, at, content),
        "content-type": "application/json",
    }
    return httpx.post(f"{stack.url}/v1/webhook", params={"wait": wait}, content=content, headers=headers, timeout=60)
