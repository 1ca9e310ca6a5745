"""The error for a delivery id that another command has, as the relay and the worker report it."""

from __future__ import annotations

from models.errors import Conflict


def delivery_conflict(*, hint: str = "Send it again with a new id.") -> Conflict:
    """Returns the error; the command was not stored, or not applied."""
    return Conflict(
        "Another command has this delivery id; this one was not applied.",
        code="delivery_conflict",
        field="id",
        hint=hint,
    )
