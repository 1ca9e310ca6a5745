"""Redacts responses for senders without read access: whether a command took effect, and nothing of what is there."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from models.commands.definitions import Command
from sessions.rules.event_log import EVENT_FIELDS, ApplyResult
from sessions.rules.task_access import may_read_answer

SHOWN_OF_BATCHES = frozenset({"failed", "failed_item", "processed"})
SHOWN_DATA = (EVENT_FIELDS - {"agent_name", "revision", "type"}) | SHOWN_OF_BATCHES | {"deleted", "session_id"}
"""Of what took effect: ids that the sender has given or that are made from what it sent, and numbers."""
SHOWN_OF_ERRORS = ("code", "field", "retryable")
HINT = "A key with the scope read is told more, at GET /v1/deliveries."


def redacted(applied: ApplyResult, command: Command | Exception) -> ApplyResult:
    """Add the response for the sender, if it waits and may not read all of it."""
    if not applied.entry.waits or may_read_answer(applied.entry, command):
        return applied
    return msgspec.structs.replace(applied, redacted=redact(applied.response))


def redact(response: Raw) -> Raw:
    """The response without what its sender may not read."""
    content = msgspec.json.decode(response)
    return Raw(msgspec.json.encode(_withhold(content))) if isinstance(content, dict) else response


def _withhold(part: dict[str, Any]) -> dict[str, Any]:
    """Of a whole response, or of the answer to one item of a batch."""
    told = {name: value for name, value in part.items() if name not in ("updates", "data", "error", "message")}
    error = part.get("error")
    if isinstance(part.get("data"), dict):
        told["data"] = _withhold_data(part["data"], shown=SHOWN_OF_BATCHES if error else SHOWN_DATA)
    if isinstance(error, dict):
        told["message"] = f"It was refused ({error.get('code')})."
        shown = {name: error[name] for name in SHOWN_OF_ERRORS if name in error}
        told["error"] = {**shown, "message": told["message"], "hint": HINT}
    elif "message" in part:
        told["message"] = "Done."
    return told


def _withhold_data(data: dict[str, Any], *, shown: frozenset[str]) -> dict[str, Any]:
    told = {name: value for name, value in data.items() if name in shown}
    if isinstance(data.get("results"), list):
        told["results"] = [_withhold(item) for item in data["results"]]
    if isinstance(data.get("item"), dict):
        told["item"] = _withhold(data["item"])
    return told
