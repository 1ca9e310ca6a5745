"""The access log: one line for each request, which for a webhook is also the line of its acceptance.

If the answer comes later than the acceptance, or nobody is left to answer, the webhook has a line of its own.
"""

from __future__ import annotations

import logging
import re
import time
from functools import lru_cache
from typing import Any, Literal

from starlette.types import Scope

from models.errors import RelayError
from models.field_types import DELIVERY_ID_PATTERN
from models.process.log_lines import Fields, LineLog, rounded_ms, session_fingerprint
from models.process.log_repetition import WINDOW_SECONDS, Line
from models.process.url_redaction import mask_path
from models.queue.inbox import Entry

REFUSED_PER_SECOND = 10
"""Clients, senders and causes whose refused requests are logged, on average over a minute, in all processes of a relay:
a flood cannot fill the disk."""
REFUSED_PER_SOURCE = 60
"""Those of one source with one cause, per minute: few enough that the others have room."""
REFUSED_PER_ADDRESS = 1
"""The same for a client without a valid key, or one that is over a limit: its further requests tell nothing new."""
DELIVERY_ID_HEADERS = (b"idempotency-key", b"webhook-id", b"svix-id")
"""Headers that show which delivery was refused."""
ACCEPTED, BAD_REQUEST, TOO_MANY_REQUESTS = 202, 400, 429
"""HTTP statuses. Those of the standard library take longer to compare than the rest of the line."""
KEPT_LENGTH = 200
"""Longer paths are masked each time, so that those that are kept stay small."""
STATE_KEY = "log"
"""The key of the RequestLog in a request's state."""

Outcome = Literal["accepted", "duplicate", "applied", "rejected", "pending", "ignored"]

_ID = re.compile(DELIVERY_ID_PATTERN.encode())


class AccessLog(LineLog):
    """Writes the lines of one process. Make it when logging is configured."""

    def __init__(self, *, refused_per_second: int = REFUSED_PER_SECOND) -> None:
        super().__init__("relay.access")
        self._refused_per_minute = refused_per_second * WINDOW_SECONDS

    def refuses(self, line: Fields) -> bool:
        """Returns whether the line of a refused request is only counted, since there were many like it."""
        if self.handler is None:
            return True
        is_known = line.source and line.status < TOO_MANY_REQUESTS
        sender = line.source or line.client
        text = f"A request of {sender or 'a client'} was refused: {line.cause or line.status}."
        return not self.handler.admits(
            Line(logger=self._name, level=logging.INFO, text=text),
            key=(self._name, line.cause, line.status, sender),
            group=self._name,
            most=REFUSED_PER_SOURCE if is_known else REFUSED_PER_ADDRESS,
            most_in_group=self._refused_per_minute,
        )


class RequestLog:
    """What is known of one request; the server puts it into the request's state, and writes its line."""

    __slots__ = ("_began_at", "_log", "_peer", "_scope", "cause", "entry", "is_disconnected", "outcome")

    def __init__(self, log: AccessLog, scope: Scope, *, peer: str) -> None:
        """`peer` is the client's address if no proxy's header gives another."""
        self._log = log
        self._scope = scope
        self._peer = peer
        self._began_at = time.perf_counter()
        self.entry: Entry | None = None
        self.outcome: Outcome | Literal[""] = ""
        self.cause = ""
        self.is_disconnected = False

    def accepted(self, entry: Entry, *, is_new: bool, is_answered_later: bool) -> None:
        """Note that an entry is stored. Writes its line at once if it is not answered right afterwards."""
        self.entry = entry
        self.outcome = "ignored" if entry.ignored else "accepted" if is_new else "duplicate"
        if is_answered_later or self.is_disconnected:
            self._write(ACCEPTED, message=f"{entry.command or 'event'} {self.outcome}")

    def answered(self, status: int) -> None:
        """Write the request's line."""
        scope = self._scope
        path = scope["path"]
        shown = _mask_once(path) if len(path) <= KEPT_LENGTH else mask_path(path)
        named = f"{scope['method']} {shown}" if scope["method"] else "unreadable request"
        self._write(status, message=f"{named} {status}", path=shown)

    def info(self, _: str, *arguments: Any) -> None:
        """Take the line from uvicorn, for which this is its logger."""
        self.answered(arguments[-1])

    def _write(self, status: int, *, message: str, path: str = "") -> None:
        log, state, entry = self._log, self._scope["state"], self.entry
        line = Fields(
            message=message,
            status=status,
            outcome=self.outcome,
            source=state.get("source") or "",
            client=state.get("address") or self._peer,
            duration_ms=rounded_ms(time.perf_counter() - self._began_at),
            method=self._scope["method"] if path else "",
            path=path,
        )
        if entry is not None:
            line.delivery_id, line.command = entry.delivery_id, entry.command
            if entry.session_id:
                line.session = session_fingerprint(entry.session_id)
        if status >= BAD_REQUEST and self.outcome in ("", "accepted", "duplicate"):
            line.outcome, line.cause = "refused", self.cause
            if not line.delivery_id and line.source:
                line.delivery_id = _announced_id(self._scope)
            if log.refuses(line):
                return
        log.write((line,))


def request_log(scope: Scope) -> RequestLog | None:
    """Returns the log of a request, or None if nothing is logged, or another server serves it."""
    state = scope.get("state")
    return state.get(STATE_KEY) if state else None


def note_error(scope: Scope, error: RelayError) -> None:
    """Note why a request is refused."""
    if log := request_log(scope):
        log.cause = error.code


def _announced_id(scope: Scope) -> str:
    """Returns the valid delivery id in a header of a refused request, if there is one."""
    given = next((value for name, value in scope["headers"] if name in DELIVERY_ID_HEADERS), b"").strip(b'"')
    return given.decode() if _ID.search(given) else ""


_mask_once = lru_cache(1_024)(mask_path)
