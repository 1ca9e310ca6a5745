"""Responses that are too large, or come too thick, to be passed on to a sender that waits: what it is told instead."""

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


def without_data(entry: Entry, outcome: Outcome, *, passing: bool) -> Outcome:
    """The outcome of a change without its data, which its delivery has; for a read, an error. `passing` says that it
    was not too large, but that there is no room for it at the moment."""
    if outcome.status < 400 and entry.command in COMMANDS and COMMANDS[entry.command].is_read:
        return _refuse_read(entry, passing=passing)
    content: dict[str, Any] = msgspec.json.decode(outcome.body, type=dict[str, Raw])
    what = "It took effect" if outcome.status < 400 else "It was refused"
    where = f"GET /v1/deliveries/{entry.delivery_id} has it."
    content["message"] = f"{what}, and the answer is too large to be passed on at the moment. {where}"
    content["data"] = {"truncated": True}
    content.pop("updates", None)
    return msgspec.structs.replace(outcome, body=Raw(msgspec.json.encode(content)))


def _refuse_read(entry: Entry, *, passing: bool) -> Outcome:
    error: RelayError = TooManyRequests(
        "The answers of this sender that nobody has fetched take up its share of the memory.",
        code="answer_share",
        retry_after_seconds=RETRY_AFTER_SECONDS,
        hint="Send it again in some seconds, and wait for the answer; or ask for less with max_characters.",
    )
    if not passing:
        error = Rejected(
            "The answer is too large to be passed on.",
            code="answer_too_large",
            hint="Ask for less: a smaller max_characters, or fewer things at once.",
        )
    body = failure(
        error, command=entry.command, session_id=entry.session_id, delivery_id=entry.delivery_id, now=datetime.now(UTC)
    )
    return Outcome(status=error.status, body=Raw(msgspec.json.encode(body)), accepted_at=entry.accepted_at)
