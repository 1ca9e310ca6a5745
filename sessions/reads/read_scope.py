"""The access and time of one read, the same for every store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from models.commands.definitions import PeriodCommand


class ReadScope(msgspec.Struct, frozen=True, kw_only=True):
    """The sessions that a read may access: one, or all that the pattern allows."""

    session_id: str | None
    session_glob: str | None
    now: datetime
    source: str | None = None
    """The source of the reader; a task that it reads counts as seen by it."""

    def during(self, command: PeriodCommand) -> Callable[[datetime], bool]:
        """Return a function that checks whether a time is in the command's period."""
        since, until = command.period(self.now)
        return lambda moment: (since is None or moment >= since) and (until is None or moment < until)
