"""The response to a command, the same on every interface."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime
from typing import Any

from models.errors import RelayError
from models.timestamps import format_utc

RESPONSE_TYPE = "collaborative_session_response"
MESSAGE_LENGTH = 200
"""Maximum characters of a message: one sentence that can be read aloud."""
TITLE_LENGTH = 80
"""Maximum characters of a task's title in a sentence, and of one made from a description."""
_CONTROLS = re.compile(r"[\u0000-\u001f\u007f-\u009f\u2028\u2029]+")


def success(
    *, command: str, session_id: str | None, delivery_id: str, now: datetime, message: str, data: dict[str, Any]
) -> dict[str, Any]:
    """Return the response to a read, or to a command that was applied."""
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
    """Return the response to a command that was rejected or could not be applied."""
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
    """Truncate to at most `length` characters, with an ellipsis at the end."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def make_title(text: str) -> str:
    """Return the first line of a text that shows anything, cut to a readable length, as a title."""
    lines = (" ".join(_CONTROLS.sub(" ", line).split()) for line in text.splitlines())
    return shorten(unicodedata.normalize("NFC", next(filter(None, lines), "Untitled")), TITLE_LENGTH)


def type_name(kind: str) -> str:
    """Returns a memory type as a word for a sentence."""
    return "memory" if kind == "general" else kind.replace("_", " ")
