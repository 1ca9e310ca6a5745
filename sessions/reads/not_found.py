"""What a reader is told of an id under which there is nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from rapidfuzz import fuzz, process

from models.errors import NotFound

Kind = Literal["session", "memory", "task", "artifact"]

CANDIDATES = 200
"""Latest ids among which similar ones are looked for. Comparing all of them takes less than a millisecond, however long
and alike they are: what cannot be found must cost nobody else time."""
SIMILARITY = 60
"""Of 100; below it an id is rather another one than the same misspelt."""

_FIELDS = {"session": "session_id", "memory": "data.key", "task": "data.task_id", "artifact": "data.artifact_id"}
_LISTS = {"memory": "list_memories", "task": "list_tasks", "artifact": "list_artifacts"}


def nearest_of(wanted: str, known: Iterable[str]) -> list[str]:
    """Up to three of the ids that are most like the one wanted, the nearest first."""
    choices = list(dict.fromkeys(known))
    found = process.extract(wanted, choices, scorer=fuzz.ratio, score_cutoff=SIMILARITY, limit=3)
    return [name for name, _, _ in found]


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
