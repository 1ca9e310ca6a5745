"""What a reader is told of an id under which there is nothing."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Literal

from models.errors import NotFound

Kind = Literal["session", "memory", "task", "artifact"]

CANDIDATES = 200
"""Latest ids among which similar ones are looked for; comparing costs about 0.1 ms each."""
SIMILARITY = 0.5
"""Of 1; below it an id is rather another one than the same misspelt."""

_FIELDS = {"session": "session_id", "memory": "data.key", "task": "data.task_id", "artifact": "data.artifact_id"}
_LISTS = {"memory": "list_memories", "task": "list_tasks", "artifact": "list_artifacts"}


def nearest_of(wanted: str, known: Iterable[str]) -> list[str]:
    """Up to three of the ids that are most like the one wanted, the nearest first."""
    return get_close_matches(wanted, list(dict.fromkeys(known)), n=3, cutoff=SIMILARITY)


def missing(kind: Kind, wanted: str, *, similar: list[str], message: str = "") -> NotFound:
    """The error, with the nearest ids that are there."""
    hints = [f"Did you mean {' or '.join(repr(name) for name in similar)}?"] if similar else []
    if kind == "session":
        hints.append("create_session starts one; list_sessions shows those that exist.")
    elif not similar:
        hints.append(f"{_LISTS[kind]} shows those that exist.")
    where = "" if kind == "session" else " in this session"
    return NotFound(
        message or f"There is no {kind} {wanted[:128]!r}{where}.",
        code=f"{kind}_not_found",
        field=_FIELDS[kind],
        hint=" ".join(hints),
    )
