"""Turns values of reads into texts for people: contents of any JSON, times, titles without direction marks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from sessions.search.snippets import MARK

DIRECTION_MARKS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that change the direction of the text around them."""
UNSAFE_IN_NAMES = re.compile(r'[\\/:*?"<>|\x00-\x1f\x7f]')
NAME_LENGTH = 100
MINUTE = 60
ENDINGS = {"markdown": "md", "text": "txt", "plain": "txt", "python": "py", "javascript": "js"}
WORDS = {"input_required": "asking", "pending": "waiting", "action_item": "action item"}
"""Names of states and kinds that read badly."""


class Shown(NamedTuple):
    """A value as text."""

    text: str
    is_code: bool = False


class Progress(NamedTuple):
    """How far a task is."""

    text: str
    percent: float | None


def shown(value: Any) -> Shown:
    """Show a content: a text as it is, an object of plain values as lines, all else as indented JSON. A str is part of
    a long content, and shown as it is."""
    if value is None:
        return Shown("")
    if isinstance(value, str):
        return Shown(value)
    try:
        verbatim = value if isinstance(value, Raw) else Raw(msgspec.json.encode(value))
        decoded = msgspec.json.decode(verbatim)
    except (msgspec.DecodeError, RecursionError):
        return Shown(bytes(verbatim).decode(errors="replace"), is_code=True)
    if isinstance(decoded, str):
        return Shown(decoded)
    if isinstance(decoded, dict) and decoded and all(isinstance(part, str | int | float) for part in decoded.values()):
        (_, first), *rest = decoded.items()
        return Shown("\n".join([str(first), *(f"{name}: {part}" for name, part in rest)]))
    return Shown(msgspec.json.format(bytes(verbatim)).decode(), is_code=True)


def read_progress(value: Any) -> Progress:
    """Read the progress that an agent has reported."""
    try:
        reported = msgspec.json.decode(value, type=dict[str, Any]) if isinstance(value, Raw) else {"text": value}
    except msgspec.DecodeError:
        return Progress("", None)
    percent = reported.get("percent")
    return Progress(str(reported.get("text") or ""), percent if isinstance(percent, int | float) else None)


def marked_parts(snippet: str) -> Iterator[tuple[str, bool]]:
    """Split a snippet of the search into parts, each with whether it is a hit."""
    for number, part in enumerate(snippet.split(MARK)):
        if part:
            yield part, number % 2 == 1


def file_name(name: str, form: str) -> str:
    """Return a name for a file with a content in this format."""
    plain = UNSAFE_IN_NAMES.sub("_", DIRECTION_MARKS.sub("", name)).strip(" .")[:NAME_LENGTH] or "artifact"
    ending = ENDINGS.get(form.lower(), form.lower())
    return plain if "." in plain or not ending.isalnum() else f"{plain}.{ending}"


def day_and_time(moment: str) -> str:
    """Write a time in UTC. In a browser with scripts it is replaced by the reader's own."""
    return f"{datetime.fromisoformat(moment):%-d %b %Y, %H:%M} UTC"


def duration(seconds: float) -> str:
    """Write a duration with its two largest units."""
    if seconds < MINUTE:
        return f"{seconds:.3g} s"
    units = ((86_400, "d"), (3_600, "h"), (MINUTE, "min"), (1, "s"))
    place = next(number for number, (size, _) in enumerate(units) if seconds >= size)
    (large, name), (small, smaller) = units[place : place + 2]
    rest = int(seconds % large / small)
    return f"{int(seconds // large)} {name}" + (f" {rest} {smaller}" if rest else "")


def clean_title(text: str) -> str:
    """Remove direction marks, which would reach beyond a title where it cannot be isolated."""
    return DIRECTION_MARKS.sub("", text)


def describe(word: str) -> str:
    """Return a state or kind in words."""
    return WORDS.get(word, word.replace("_", " "))
