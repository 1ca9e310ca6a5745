"""Whether Redis keeps what it has answered: the settings on which the promise of a 202 rests."""

from __future__ import annotations

from collections.abc import Mapping

NEEDED = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
"""With less, what was accepted can be lost with the last second, with the server, or to make room."""


def check_persistence(answer: Mapping[str, str] | Exception) -> str | None:
    """What is wrong with the server's settings, as it gave them; a server that keeps them to itself is not known to be
    durable."""
    if isinstance(answer, Exception):
        return "Redis does not tell its settings, so it is not known whether it keeps what it answered"
    wrong = [f"{name} {answer.get(name, '?')}" for name, value in NEEDED.items() if answer.get(name) != value]
    needed = " ".join(f"{name} {value}," for name, value in NEEDED.items()).rstrip(",")
    return f"Redis has {', '.join(wrong)}; it needs {needed}" if wrong else None
