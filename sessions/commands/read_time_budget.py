"""The time that reads sent as commands may take: their answers keep the order of a shard, so others wait for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from models.errors import TooManyRequests

AT_ONCE_SECONDS = 0.3
"""Of one source, if it has read nothing for a while."""
SHARE = 0.3
"""Of each second that passes, given back to a source. With what it has at once, and the transaction in hand, others
wait for at most a second."""
TOGETHER_SECONDS = 0.5
"""Of all sources in one transaction, which then ends; and of one source while nobody else waits."""
SMALLEST_SECONDS = 0.02
"""With less no read is begun: it would be given up, and its time be lost."""


class ReadTimeBudget:
    """The time for the reads in one transaction. A source that takes more than it has owes the rest."""

    def __init__(self, owed: Callable[[str], float], *, is_alone: Callable[[str], bool]) -> None:
        """`owed` tells what a source has taken before, and was not given back yet; `is_alone`, whether nobody but the
        source waits for what is done here."""
        self._owed = owed
        self._is_alone = cache(is_alone)
        self._left: dict[str, float] = {}
        self._together = TOGETHER_SECONDS
        self.taken: dict[str, float] = {}
        """Seconds, by source."""

    @property
    def is_over(self) -> bool:
        """Whether what is left is less than a source has at once: in the next transaction it has all of that."""
        return self._together < AT_ONCE_SECONDS

    def left(self, source: str) -> float:
        """How long the next read of a source may take. Raises TooManyRequests if that is too little. As long as nobody
        else waits a source is refused nothing: on a busy machine its reads may be slow without being large."""
        if source not in self._left:
            self._left[source] = AT_ONCE_SECONDS - self._owed(source)
        seconds = self._left[source]
        if seconds < AT_ONCE_SECONDS and self._is_alone(source):
            seconds = TOGETHER_SECONDS
        seconds = min(seconds, self._together)
        if seconds < SMALLEST_SECONDS:
            raise exhausted()
        return seconds

    def spend(self, source: str, seconds: float) -> None:
        """Note that a read has taken so long."""
        self._left[source] -= seconds
        self._together -= seconds
        self.taken[source] = self.taken.get(source, 0.0) + seconds


def exhausted() -> TooManyRequests:
    """The refusal of a read for which there is no time now. Its delivery id is not bound by it; the id of a batch is
    bound by what else the batch did."""
    return TooManyRequests(
        "Reads that were sent as commands take too long at the moment; this one was not done. All else goes on.",
        code="reads_too_slow",
        retry_after_seconds=2,
        hint="Send this read again in some seconds, or read by GET; ask for less: one session, a shorter period.",
    )
