"""What is said about the result of a read: one sentence that can be read aloud, with titles and not ids. Pure."""

from __future__ import annotations

from typing import Any

from models.commands.responses import shorten, type_name

TITLE_LENGTH = 80
"""Of a title in a sentence, which has at most 200 characters in all."""

_STATES = {
    "pending": "waits for an agent",
    "claimed": "is with an agent",
    "running": "is being worked on",
    "input_required": "waits for an answer to a question",
    "completed": "is completed",
    "failed": "failed",
    "cancelled": "is cancelled",
}


def quoted(title: str) -> str:
    """A title in quotation marks."""
    return f'"{shorten(title, TITLE_LENGTH)}"'


def counted(number: int, noun: str) -> str:
    """The number of things, `no` for none."""
    first, *rest = type_name(noun).split(" for ")
    if number != 1:
        first = "memories" if first == "memory" else f"{first}s"
    return " for ".join([f"{number or 'no'} {first}", *rest])


def found(number: int, noun: str, *, where: str | None, more: bool) -> str:
    """What a list holds."""
    place = f" in {where}" if where else ""
    return f"Found {counted(number, noun)}{place}{', and there are more' if more else ''}."


def of_session(summary: dict[str, Any]) -> str:
    """How a session stands."""
    stats = summary["stats"]
    holds = f"{counted(stats['memories'], 'memory')} and {counted(stats['active_tasks'], 'open task')}"
    return f"{quoted(summary['title'])} is {summary['status']}, with {holds}."


def of_task(task: dict[str, Any]) -> str:
    """How a task stands."""
    state = _STATES[task["status"]]
    if needed := task.get("blocked_by"):
        gone = any(other["status"] in ("failed", "cancelled") for other in needed)
        state = "waits for a task that will not be completed" if gone else "waits for other tasks"
    return f"{quoted(task['description'])} {state}." if "description" in task else f"The task {state}."


def of_bundle(bundle: dict[str, Any]) -> str:
    """What a bundle is good for."""
    rest = "; not all of it fitted" if "truncated" in bundle else ""
    return f"Here is what you need to go on with {quoted(bundle['session']['title'])}{rest}."
