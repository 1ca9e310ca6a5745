"""Formats times and counts for people."""

from __future__ import annotations

from datetime import datetime

_STEPS = ((60, "minute"), (60, "hour"), (24, "day"), (7, "week"))
"""Pairs of a unit and its size in the unit before."""
CLOCK_SECONDS = 5
"""The difference between clocks that is ignored."""
MONTH_DAYS = 60
"""The age in days from which a date is shown instead."""


def ago(text: str | None, *, now: datetime) -> str:
    """Format an ISO time relative to now: `3 minutes ago`, `in 2 hours`; a date if it is long ago."""
    if not text:
        return ""
    try:
        moment = datetime.fromisoformat(text)
        seconds = (now - moment).total_seconds()
    except (ValueError, TypeError):
        return text
    if abs(seconds) > MONTH_DAYS * 86_400:
        return f"{moment:%Y-%m-%d}"
    number = int(abs(seconds))
    if number < CLOCK_SECONDS:
        return "now"
    unit = "second"
    for size, larger in _STEPS:
        if number < size:
            break
        number, unit = number // size, larger
    age = count(number, unit)
    return f"{age} ago" if seconds > 0 else f"in {age}"


def count(number: int, noun: str, plural: str = "") -> str:
    """Format a count: `1 memory`, `2 memories`, `1,000 tasks`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def contents(stats: dict[str, int]) -> str:
    """Summarize a session's contents: `2 chunks and 1 task`."""
    nouns = (
        ("conversation_chunks", "chunk", ""),
        ("memories", "memory", "memories"),
        ("tasks", "task", ""),
        ("artifacts", "artifact", ""),
    )
    counts = [count(stats[name], noun, plural) for name, noun, plural in nouns if stats.get(name)]
    return f"{', '.join(counts[:-1])} and {counts[-1]}" if len(counts) > 1 else "".join(counts) or "no contents"
