"""The webhook that all measurements send: one store_memory with a unique key, in one of 500 sessions."""

from __future__ import annotations

SESSIONS = 500
API_KEY = "key-of-the-bench"
SOURCE_PATH = "/v1/webhook"
TEMPLATE = (
    '{"command":"store_memory","session_id":"bench-%d","id":"%s-%d","data":{"key":"%s-%d","type":"decision",'
    '"content":"Decision %d: the heat pump goes behind the shed, because the neighbours sleep on the other side."}}'
)
"""Formatted alike by Python and by Lua: the session, then prefix and number of the id and of the key."""


def body_of(prefix: str, number: int, *, sessions: int = SESSIONS) -> bytes:
    """Return the body of the webhook with this number. A prefix is used in one load only."""
    return (TEMPLATE % (number % sessions, prefix, number, prefix, number, number)).encode()


def headers() -> dict[str, str]:
    """Return the headers of every webhook."""
    return {"Content-Type": "application/json", "X-API-Key": API_KEY}
