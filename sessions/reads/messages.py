"""Sentences that summarize the result of a read, fit to be read aloud: with titles, not ids. Pure."""

from __future__ import annotations

import re
from typing import Any

from models.commands.responses import shorten, type_name

TITLE_LENGTH = 80
"""Characters of a title in a sentence, which has at most 200 characters."""

_STATES = {
    "pending": "is waiting for an agent",
    "claimed": "is claimed by an agent",
    "running": "is running",
    "input_required": "is waiting for an answer to a question",
    "completed": "is completed",
    "failed": "failed",
    "cancelled": "is cancelled",
}
_REST = {"chunk": "the text goes on"}
"""By noun: the end of a sentence about a list that has another page."""
_QUALIFIED = re.compile(" (?:for|with) ")
"""Where the part of a noun ends that has a plural, and its qualification begins."""


def quoted(title: str) -> str:
    """The title, shortened and in quotation marks."""
    return f'"{shorten(title, TITLE_LENGTH)}"'


def counted(number: int, noun: str) -> str:
    """The number with its noun; `no` for zero."""
    name = type_name(noun)
    qualified = _QUALIFIED.search(name)
    end = qualified.start() if qualified else len(name)
    head, rest = name[:end], name[end:]
    if number != 1:
        head = "memories" if head == "memory" else f"{head}s"
    return f"{number or 'no'} {head}{rest}"


def found(number: int, noun: str, *, where: str | None, more: bool) -> str:
    """Summarize a list."""
    place = f" in {where}" if where else ""
    rest = f", and {_REST.get(noun, 'there are more')}" if more else ""
    return f"Found {counted(number, noun)}{place}{rest}."


def found_nothing(*, where: str, is_incomplete: bool, by_meaning: bool) -> str:
    """Summarize a search without hits, and suggest what to do next. `is_incomplete`: not all meanings can be compared
    yet."""
    if not is_incomplete:
        return f"Found no hits in {where}. Try key nouns in the language of the texts."
    method = "" if by_meaning else " by words only"
    hint = "The search by meaning is not ready yet: try again in some seconds, or use key nouns."
    return f"Found no hits{method} in {where}. {hint}"


def of_session(summary: dict[str, Any]) -> str:
    """Summarize a session."""
    stats = summary["stats"]
    holds = f"{counted(stats['memories'], 'memory')} and {counted(stats['active_tasks'], 'open task')}"
    return f"{quoted(summary['title'])} is {summary['status']}, with {holds}."


def of_task(task: dict[str, Any]) -> str:
    """Summarize a task."""
    state = _STATES[task["status"]]
    if needed := task.get("blocked_by"):
        gone = any(other["status"] in ("failed", "cancelled") for other in needed)
        state = "is waiting for a task that will not be completed" if gone else "is waiting for other tasks"
    return f"{quoted(task['title'])} {state}." if "title" in task else f"The task {state}."


def of_bundle(bundle: dict[str, Any]) -> str:
    """Summarize a resume bundle."""
    truncated = ", cut to fit" if "truncated" in bundle else ""
    return f"Here is the context to continue {quoted(bundle['session']['title'])}{truncated}."
