"""Puts a memory's content into words: objects as LLMs write them, such as a decision with its rationale."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

HEADS = (
    *("decision", "idea", "question", "action_item", "action", "fact", "risk", "preference", "note"),
    *("title", "name", "summary", "text", "description", "what"),
)
"""Names of fields that hold the statement itself, in order of preference. Without one, the first plain field does."""
REASONS = ("rationale", "reason", "reasons", "why", "because")
"""Names of fields that hold the reason of the statement."""
Plain = str | int | float


class Prose(NamedTuple):
    """A content in words."""

    headline: str
    details: tuple[tuple[str, str], ...] = ()
    """Name and value of each further field."""

    @property
    def text(self) -> str:
        """All of it, with a line for each further field."""
        return "\n".join([self.headline, *(f"- {name}: {value}" for name, value in self.details)]).lstrip("\n")


def describe(value: Any) -> Prose | None:
    """Put a decoded content into words: `decision — rationale`, then its other fields. Returns None for one that only
    JSON shows well, such as a list of objects."""
    if isinstance(value, Plain):
        return Prose(_words(value))
    if isinstance(value, list) and value and all(isinstance(item, Plain) for item in value):
        return Prose(", ".join(map(_words, value)))
    if not isinstance(value, dict) or not value:
        return None
    plain = [name for name, part in value.items() if isinstance(part, Plain) and part != ""]
    if not plain:
        return None
    head = next((name for name in HEADS if name in plain), plain[0])
    reason = next((name for name in REASONS if name in plain and name != head), None)
    headline = _words(value[head]) + (f" — {_words(value[reason])}" if reason else "")
    rest = ((name, part) for name, part in value.items() if name not in (head, reason))
    return Prose(headline, tuple((name, _detail(part)) for name, part in rest if part not in (None, "", [], {})))


def _detail(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, Plain) for item in value):
        return ", ".join(map(_words, value))
    return _words(value) if isinstance(value, Plain) else msgspec.json.encode(value).decode()


def _words(value: Plain) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
