"""Client connections of this process: their number, and timeouts. What is sent on them is left to `protocol`."""

from __future__ import annotations

import logging
import resource
from collections import OrderedDict
from typing import Protocol, cast

import msgspec
from uvicorn.server import ServerState

from relay.http.access_log import AccessLog
from relay.http.responses import RecordRejection

MAX_CONNECTIONS = 10_000
"""Open at a time in all processes of a relay; each costs about 10 kB while it is idle."""
LONGEST_STEP_SECONDS = 2.0
"""The clock advances by at most that per check: clients are not blamed for a process that was suspended."""

logger = logging.getLogger(__name__)


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Timeouts for clients."""

    head_seconds: float = 10.0
    """From the first byte of a request, or the opening of the connection, to the end of the headers."""
    body_seconds: float = 30.0
    """For a body; arriving bytes extend it."""
    answer_seconds: float = 60.0
    """For reading a response; bytes that are read extend it."""
    last_seconds: float = 3.0
    """When the process stops, for a body that is arriving, and for a response of which nothing is read."""
    bytes_per_second: int = 8_192
    """The speed at which a body or a response never times out; a phone with a poor connection is faster."""
    check_seconds: float = 1.0
    """Time between two checks of all connections, and so the largest delay of a timeout."""


class HttpConnection(Protocol):
    """A client's connection."""

    def close_if_overdue(self, now: float) -> None:
        """Close it if the client has exceeded a timeout."""

    def close_after_answer(self) -> None:
        """Close it after its next answer."""

    def abort(self) -> None:
        """Close it at once."""


class ConnectionRegistry(ServerState):
    """All connections of a server. Adds to uvicorn's state a limit, a clock, and the idle connections."""

    def __init__(
        self,
        *,
        limit: int,
        timeouts: Timeouts,
        record_rejection: RecordRejection,
        access_log: AccessLog | None = None,
    ) -> None:
        super().__init__()
        self.timeouts = timeouts
        self.record_rejection = record_rejection
        """Called for requests that never reach the app."""
        self.access_log = access_log or AccessLog()
        self.now = 0.0
        """Seconds, advanced by each check: cheaper than reading the time for each part of each request."""
        self.is_ending = False
        """Whether each connection is closed after its next answer."""
        self._limit = limit
        self._without_request: OrderedDict[HttpConnection, None] = OrderedDict()

    def mark_idle(self, client: HttpConnection) -> None:
        """Mark a connection as without a request. May be repeated."""
        self._without_request[client] = None

    def mark_active(self, client: HttpConnection) -> None:
        """Mark a connection as busy with a request, or closed. May be repeated."""
        self._without_request.pop(client, None)

    def has_idle(self) -> bool:
        """Returns whether any connection is without a request."""
        return bool(self._without_request)

    def close_after_answers(self) -> None:
        """Have each connection closed after its next answer, also those that are still to come."""
        self.is_ending = True
        for client in cast("list[HttpConnection]", list(self.connections)):
            client.close_after_answer()

    def make_room(self) -> bool:
        """Returns whether the new connection may stay.

        At the limit, the connection that has been idle for the longest is closed: under a flood of connections that
        send nothing, or only parts of heads, clients with complete requests are still served.
        """
        if len(self.connections) <= self._limit:
            return True
        if not self._without_request:
            return False
        oldest, _ = self._without_request.popitem(last=False)
        oldest.abort()
        return True

    def close_overdue(self, elapsed_seconds: float) -> None:
        """Advance the clock, and close connections whose client has exceeded a timeout."""
        self.now += min(elapsed_seconds, LONGEST_STEP_SECONDS)
        for client in cast("list[HttpConnection]", list(self.connections)):
            try:
                client.close_if_overdue(self.now)
            except Exception:  # The other connections must go on.
                logger.exception("Bug: a connection could not be checked.")
                client.abort()


def raise_file_limit() -> int:
    """Raises the limit of open files to the maximum; returns how many client connections fit.

    Half of the files: the rest is for connections that are closing, for those that arrive before any can be closed,
    and for this process.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # macOS reports no limit, but has one.
        logger.info("The limit of open files cannot be raised.")
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if files == resource.RLIM_INFINITY else min(files // 2, MAX_CONNECTIONS)
