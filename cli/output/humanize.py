"""Times, sizes and counts in the words that people use."""

from __future__ import annotations

from datetime import datetime

_STEPS = ((60, "minute"), (60, "hour"), (24, "day"), (7, "week"))
"""How many of a unit make the next one."""
CLOCK_SECONDS = 5
"""Clocks differ by that much."""
MONTH_DAYS = 60
"""Longer ago than that a date says more."""


def ago(text: str | None, *, now: datetime) -> str:
    """A time of the wire as seen from now: `3 minutes ago`, `in 2 hours`; a date when it is long ago."""
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
    told = count(number, unit)
    return f"{told} ago" if seconds > 0 else f"in {told}"


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 memory`, `2 memories`, `1,000 tasks`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def contents(stats: dict[str, int]) -> str:
    """What a session holds."""
    nouns = (
        ("conversation_chunks", "chunk", ""),
        ("memories", "memory", "memories"),
        ("tasks", "task", ""),
        ("artifacts", "artifact", ""),
    )
    told = [count(stats[name], noun, plural) for name, noun, plural in nouns if stats.get(name)]
    return f"{', '.join(told[:-1])} and {told[-1]}" if len(told) > 1 else "".join(told) or "nothing in it"
