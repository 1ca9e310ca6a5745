"""Not-found errors, with similar ids as suggestions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from models.commands.responses import shorten
from models.errors import NotFound

Kind = Literal["session", "chunk", "memory", "task", "artifact"]

Suggestions = Sequence[str] | Mapping[str, str]
"""Ids, the nearest first; those of sessions with their titles."""

CANDIDATES = 200
"""Most recent ids that are compared for suggestions. Comparing all of them takes less than a millisecond, however long
and similar they are: a missing id must not delay other senders."""
SIMILARITY = 60
"""Out of 100; a less similar id is more likely another id than a misspelling."""

MOST_SUGGESTIONS = 3
TITLE_LENGTH = 60
"""Characters of a session's title in a suggestion."""

_FIELDS = {
    "session": "session_id",
    "chunk": "data.chunk_id",
    "memory": "data.key",
    "task": "data.task_id",
    "artifact": "data.artifact_id",
}
_LISTS = {
    "chunk": "read_conversation without chunk_id",
    "memory": "list_memories",
    "task": "list_tasks",
    "artifact": "list_artifacts",
}


def nearest_of(wanted: str, known: Iterable[str]) -> list[str]:
    """Up to three of the known ids that are most similar to the wanted one, nearest first."""
    from rapidfuzz import fuzz, process  # Imported here: few processes look for similar ids.

    choices = list(dict.fromkeys(known))
    found = process.extract(wanted, choices, scorer=fuzz.ratio, score_cutoff=SIMILARITY, limit=MOST_SUGGESTIONS)
    return [name for name, _, _ in found]


def suggest(similar: Suggestions) -> str:
    """The question whether one of these ids was meant; of sessions, with their titles."""
    titles = similar if isinstance(similar, Mapping) else {}
    named = [repr(name) + (f' ("{shorten(titles[name], TITLE_LENGTH)}")' if name in titles else "") for name in similar]
    return f"Did you mean {' or '.join(named)}?"


def missing(kind: Kind, wanted: str, *, similar: Suggestions, message: str = "") -> NotFound:
    """The error, with the most similar existing ids as suggestions."""
    hints = [suggest(similar)] if similar else []
    if kind == "session":
        hints.append("list_sessions shows existing sessions; create_session creates one.")
    elif not similar:
        hints.append(f"{_LISTS[kind]} shows existing ones.")
    where = "" if kind == "session" else " in this session"
    return NotFound(
        message or f"{kind.capitalize()} {wanted[:128]!r} not found{where}.",
        code=f"{kind}_not_found",
        field=_FIELDS[kind],
        hint=" ".join(hints),
    )
