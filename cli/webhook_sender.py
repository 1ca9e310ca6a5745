"""Posts events as webhooks, signed by Standard Webhooks: HMAC-SHA256 over id, time and body."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
import urllib3
from urllib3.exceptions import HTTPError

from agent.http.response_deadlines import complete_within, make_pool
from models.errors import SettingsError

PREFIX = "whsec_"
SECRET_BYTES = 24
LEAST_SECRET_BYTES = 16
ATTEMPTS = 3
PAUSE_SECONDS = 0.5
"""The pause before the second attempt. It doubles with each further one."""
ANSWER_SECONDS = 10.0
"""The time that a receiver has for its answer."""
ID_DIGITS = 32
SUCCESSES = range(200, 300)


class Sent(NamedTuple):
    """The outcome of one webhook."""

    webhook_id: str
    status: str
    """`delivered` or `failed`."""
    http_status: int | None
    attempts: int
    reason: str


def new_secret() -> str:
    """Create a signing secret."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


class WebhookSender:
    """Posts to one address with one secret. Each event has the same id whenever it is sent."""

    def __init__(self, url: str, secret: str) -> None:
        """Raises SettingsError for an invalid secret, without showing it."""
        try:
            self._key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            self._key = b""
        if not secret.startswith(PREFIX) or len(self._key) < LEAST_SECRET_BYTES:
            raise SettingsError("Invalid signing secret.", expected=f"{PREFIX} and at least 16 bytes in base64")
        self.secret = secret
        self._url = url
        self._pool = make_pool(connections=1)

    def send(self, session_id: str, event: dict[str, Any]) -> Sent:
        """Post an event, again if the receiver does not answer with a success."""
        webhook_id = event_id(session_id, event)
        content = {"type": event["event"], "timestamp": event["at"], "session_id": session_id, "data": event}
        body = msgspec.json.encode(content)
        http_status, reason = None, ""
        for attempt in range(1, ATTEMPTS + 1):
            http_status, reason = self._post(webhook_id, body)
            if http_status in SUCCESSES:
                return Sent(webhook_id, "delivered", http_status, attempt, "")
            if attempt < ATTEMPTS:
                time.sleep(PAUSE_SECONDS * 2.0 ** (attempt - 1))
        return Sent(webhook_id, "failed", http_status, ATTEMPTS, reason)

    def _post(self, webhook_id: str, body: bytes) -> tuple[int | None, str]:
        headers = {"Content-Type": "application/json", "User-Agent": "session-relay", **self.sign(webhook_id, body)}
        timeout = urllib3.Timeout(ANSWER_SECONDS)
        try:
            with complete_within(ANSWER_SECONDS):
                answer = self._pool.request(
                    "POST", self._url, body=body, headers=headers, timeout=timeout, redirect=False
                )
        except (HTTPError, OSError) as error:
            return None, f"{self._url} does not answer ({type(error).__name__})."
        known = {status.value: f" {status.phrase}" for status in HTTPStatus}
        return answer.status, f"{self._url} answered {answer.status}{known.get(answer.status, '')}."

    def sign(self, webhook_id: str, body: bytes, *, at: int | None = None) -> dict[str, str]:
        """Return the headers of a webhook sent now, or at a Unix time."""
        timestamp = str(int(time.time()) if at is None else at)
        digest = hmac.digest(self._key, b"%b.%b.%b" % (webhook_id.encode(), timestamp.encode(), body), hashlib.sha256)
        signature = f"v1,{base64.b64encode(digest).decode()}"
        return {"webhook-id": webhook_id, "webhook-timestamp": timestamp, "webhook-signature": signature}


def event_id(session_id: str, event: dict[str, Any]) -> str:
    """The id of an event's webhook."""
    return "evt_" + hashlib.sha256(f"{session_id}\n{event['cursor']}".encode()).hexdigest()[:ID_DIGITS]
