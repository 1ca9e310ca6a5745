"""Limits the time of reads sent as commands: their responses keep the order of a shard, so other senders wait for
them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from models.errors import TooManyRequests

AT_ONCE_SECONDS = 0.3
"""Time of one source that has not read for a while."""
SHARE = 0.3
"""Fraction of each elapsed second that is given back to a source. Together with the time that a source has at once, and
the current transaction, other senders wait for at most a second."""
TOGETHER_SECONDS = 0.5
"""Time of all sources in one transaction, which then ends; and of one source while no other sender waits."""
SMALLEST_SECONDS = 0.02
"""With less time no read is started: it would be cancelled, and its time wasted."""


class ReadTimeBudget:
    """The time for the reads in one transaction. A source that exceeds its time owes the rest."""

    def __init__(self, owed: Callable[[str], float], *, is_alone: Callable[[str], bool]) -> None:
        """`owed` returns the time that a source has used before and was not given back yet; `is_alone`, whether no
        other sender waits for this transaction."""
        self._owed = owed
        self._is_alone = cache(is_alone)
        self._left: dict[str, float] = {}
        self._together = TOGETHER_SECONDS
        self._unlimited: set[str] = set()
        """Sources that have exceeded their time, but are alone: it costs nobody anything, so it adds to no debt."""
        self.taken: dict[str, float] = {}
        """Seconds used, by source, that it owes."""

    @property
    def is_over(self) -> bool:
        """True if less is left than a source has at once: in the next transaction it has all of that."""
        return self._together < AT_ONCE_SECONDS

    def left(self, source: str) -> float:
        """The time that the next read of a source may take. Raises TooManyRequests if that is too little. While no
        other sender waits, a source is refused nothing: on a busy machine its reads may be slow without being large."""
        if source not in self._left:
            self._left[source] = AT_ONCE_SECONDS - self._owed(source)
        seconds = self._left[source]
        if self._is_alone(source):
            if seconds < AT_ONCE_SECONDS:
                self._unlimited.add(source)
            seconds = TOGETHER_SECONDS
        seconds = min(seconds, self._together)
        if seconds < SMALLEST_SECONDS:
            raise exhausted()
        return seconds

    def spend(self, source: str, seconds: float) -> None:
        """Record the time that a read took."""
        self._left[source] -= seconds
        self._together -= seconds
        if source not in self._unlimited:
            self.taken[source] = self.taken.get(source, 0.0) + seconds


def exhausted() -> TooManyRequests:
    """The error for a read for which no time is left. It does not bind its delivery id; the id of a batch is bound by
    the batch's other effects."""
    return TooManyRequests(
        "Reads sent as commands are taking too long; this one was not executed. Other commands are processed.",
        code="reads_too_slow",
        retry_after_seconds=2,
        hint="Send this read again in a few seconds, or read with GET. Ask for less: one session, a shorter period.",
    )
