"""Redacts responses for senders without read access: they show whether a command took effect, and no stored content."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from models.commands.definitions import Command
from sessions.rules.event_log import EVENT_FIELDS, ApplyResult
from sessions.rules.task_access import may_read_answer

SHOWN_OF_BATCHES = frozenset({"failed", "failed_item", "processed"})
SHOWN_DATA = (EVENT_FIELDS - {"agent_name", "revision", "type"}) | SHOWN_OF_BATCHES | {"deleted", "session_id"}
"""Fields that are shown of an applied command: ids that the sender sent or that derive from its content, and
numbers."""
SHOWN_OF_ERRORS = ("code", "field", "retryable")
HINT = "A key with the scope read can see the details with GET /v1/deliveries."


def redacted(applied: ApplyResult, command: Command | Exception) -> ApplyResult:
    """Add the redacted response for a sender that waits and may not read all of it."""
    if not applied.entry.waits or may_read_answer(applied.entry, command):
        return applied
    return msgspec.structs.replace(applied, redacted=redact(applied.response))


def redact(response: Raw) -> Raw:
    """The response without the content that its sender may not read."""
    content = msgspec.json.decode(response)
    return Raw(msgspec.json.encode(_redact_part(content))) if isinstance(content, dict) else response


def _redact_part(part: dict[str, Any]) -> dict[str, Any]:
    """Redact a whole response, or that to one item of a batch."""
    visible = {name: value for name, value in part.items() if name not in ("updates", "data", "error", "message")}
    error = part.get("error")
    if isinstance(part.get("data"), dict):
        visible["data"] = _redact_data(part["data"], shown=SHOWN_OF_BATCHES if error else SHOWN_DATA)
    if isinstance(error, dict):
        visible["message"] = f"The command was rejected ({error.get('code')})."
        shown = {name: error[name] for name in SHOWN_OF_ERRORS if name in error}
        visible["error"] = {**shown, "message": visible["message"], "hint": HINT}
    elif "message" in part:
        visible["message"] = "Done."
    return visible


def _redact_data(data: dict[str, Any], *, shown: frozenset[str]) -> dict[str, Any]:
    visible = {name: value for name, value in data.items() if name in shown}
    if isinstance(data.get("results"), list):
        visible["results"] = [_redact_part(item) for item in data["results"]]
    if isinstance(data.get("item"), dict):
        visible["item"] = _redact_part(data["item"])
    return visible
