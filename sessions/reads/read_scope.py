"""The access and time of one read, the same for every store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from models.commands.definitions import PeriodCommand
from models.decoding.strict import missing_field


class ReadScope(msgspec.Struct, frozen=True, kw_only=True):
    """The sessions that a read may access: one, or all that the pattern allows."""

    session_id: str | None
    session_glob: str | None
    now: datetime
    source: str | None = None
    """The source of the reader; a task that it reads counts as seen by it."""

    def require_session(self) -> str:
        """Return the session's id. Raises Invalid for a read over several sessions."""
        if self.session_id is None:
            error = missing_field("session_id", prefix="")
            error.hint = "The id of an artifact is unique within its session: send the session_id, too."
            raise error
        return self.session_id

    def during(self, command: PeriodCommand) -> Callable[[datetime], bool]:
        """Return a function that checks whether a time is in the command's period."""
        since, until = command.period(self.now)
        return lambda moment: (since is None or moment >= since) and (until is None or moment < until)
