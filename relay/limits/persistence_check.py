"""Checks the Redis settings on which the promise of a 202 rests: that what was acknowledged is kept."""

from __future__ import annotations

from collections.abc import Mapping

NEEDED = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
"""With less, accepted webhooks can be lost: those of the last second, with the server, or to eviction."""


def check_persistence(answer: Mapping[str, str] | Exception) -> str | None:
    """Returns the weakness of the server's settings, or None. A server that hides its settings counts as weak."""
    if isinstance(answer, Exception):
        return "Redis does not show its settings, so nobody knows whether it is durable"
    wrong = [f"{name} {answer.get(name, '?')}" for name, value in NEEDED.items() if answer.get(name) != value]
    needed = " ".join(f"{name} {value}," for name, value in NEEDED.items()).rstrip(",")
    return f"Redis has {', '.join(wrong)}; it needs {needed}" if wrong else None
