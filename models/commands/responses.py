"""A command's response, as every door gives it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from models.errors import RelayError
from models.timestamps import format_utc

RESPONSE_TYPE = "collaborative_session_response"
MESSAGE_LENGTH = 200
"""Characters: one sentence, fit to be read aloud."""


def success(
    *, command: str, session_id: str | None, delivery_id: str, now: datetime, message: str, data: dict[str, Any]
) -> dict[str, Any]:
    """The response of a command that took effect, or of a read."""
    return {
        "type": RESPONSE_TYPE,
        "command": command,
        "session_id": session_id,
        "status": "success",
        "message": shorten(message),
        "data": data,
        "delivery_id": delivery_id,
        "now": format_utc(now),
    }


def failure(
    error: RelayError, *, command: str, session_id: str | None, delivery_id: str, now: datetime
) -> dict[str, Any]:
    """The response of a command that was refused or could not be applied."""
    return {
        "type": RESPONSE_TYPE,
        "command": command,
        "session_id": session_id,
        "status": "error",
        "message": shorten(error.message),
        "data": error.data or {},
        "error": error.body(),
        "delivery_id": delivery_id,
        "now": format_utc(now),
    }


def shorten(text: str, length: int = MESSAGE_LENGTH) -> str:
    """At most `length` characters, cut at the end with an ellipsis."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def type_name(kind: str) -> str:
    """Returns a memory type as a word for a sentence."""
    return "memory" if kind == "general" else kind.replace("_", " ")
