"""Replaces responses that are too large, or too many, to be passed on to a waiting sender."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Raw

from models.commands.definitions import COMMANDS
from models.commands.responses import failure
from models.errors import Rejected, RelayError, TooManyRequests
from models.queue.inbox import Entry, Outcome

RETRY_AFTER_SECONDS = 5


def without_data(entry: Entry, outcome: Outcome, *, is_temporary: bool) -> Outcome:
    """The outcome of a change without its data, which its delivery has; for a read, an error. `is_temporary` means that
    the response is not too large, but that no memory is left for it at the moment."""
    if outcome.status < 400 and entry.command in COMMANDS and COMMANDS[entry.command].is_read:
        return _refuse_read(entry, is_temporary=is_temporary)
    content: dict[str, Any] = msgspec.json.decode(outcome.body, type=dict[str, Raw])
    effect = "applied" if outcome.status < 400 else "rejected"
    where = f"GET /v1/deliveries/{entry.delivery_id} returns it."
    content["message"] = f"The command was {effect}, but its response is too large to return at the moment. {where}"
    content["data"] = {"truncated": True}
    content.pop("updates", None)
    return msgspec.structs.replace(outcome, body=Raw(msgspec.json.encode(content)))


def _refuse_read(entry: Entry, *, is_temporary: bool) -> Outcome:
    error: RelayError = TooManyRequests(
        "Responses that this sender has not fetched fill its share of the memory.",
        code="answer_share",
        retry_after_seconds=RETRY_AFTER_SECONDS,
        hint="Send it again in a few seconds and wait for the response, or ask for less with max_characters.",
    )
    if not is_temporary:
        error = Rejected(
            "The response is too large to return.",
            code="answer_too_large",
            hint="Ask for less: a smaller max_characters, or fewer items at once.",
        )
    body = failure(
        error, command=entry.command, session_id=entry.session_id, delivery_id=entry.delivery_id, now=datetime.now(UTC)
    )
    return Outcome(status=error.status, body=Raw(msgspec.json.encode(body)), accepted_at=entry.accepted_at)
