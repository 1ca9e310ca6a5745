"""The connections that clients hold to this process: how many there may be, and how long each may keep us waiting.

What is said on them belongs to `protocol`.
"""

from __future__ import annotations

import logging
import resource
from collections import OrderedDict
from typing import Protocol, cast

import msgspec
from uvicorn.server import ServerState

from relay.http.responses import Note

MAX_CONNECTIONS = 10_000
"""Of clients at a time; each costs some 10 kB while it is idle."""
LONGEST_LOOK_SECONDS = 2.0
"""What passes on our clock between two looks at most: clients are not blamed for a process that was stopped."""

logger = logging.getLogger(__name__)


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How long a client may take."""

    head_seconds: float = 10.0
    """From the first byte of a request, or from the opening of the connection, to the end of its headers."""
    body_seconds: float = 30.0
    """For a body, which earns more while it moves."""
    answer_seconds: float = 60.0
    """For reading an answer, likewise."""
    bytes_per_second: int = 8_192
    """The speed at which a body or an answer goes on for ever: a phone with a poor connection has more."""
    check_seconds: float = 1.0
    """Between two looks at all clients, so by how much an end may come late."""


class HttpConnection(Protocol):
    """One connection."""

    def close_if_overdue(self, now: float) -> None:
        """End it if it has kept us waiting for too long."""

    def abort(self) -> None:
        """End it at once."""


class ConnectionRegistry(ServerState):
    """All connections of a server. Beside what uvicorn keeps of them: a bound, a clock, and who has no request."""

    def __init__(self, *, limit: int, timeouts: Timeouts, note: Note) -> None:
        super().__init__()
        self.timeouts = timeouts
        self.record_rejection = note
        """Told of requests that never got to the app."""
        self.now = 0.0
        """Seconds, in steps of a look: cheaper than asking for the time with each part of each request."""
        self._limit = limit
        self._without_request: OrderedDict[HttpConnection, None] = OrderedDict()

    def mark_idle(self, client: HttpConnection) -> None:
        """Note that it has no request now. May be repeated."""
        self._without_request[client] = None

    def mark_active(self, client: HttpConnection) -> None:
        """Note that it has a request now, or is gone. May be repeated."""
        self._without_request.pop(client, None)

    def make_room(self) -> bool:
        """Whether there is room for the connection that was just made.

        If there is none, the one that has been without a request for the longest is ended: under a flood of
        connections that send nothing, or only parts of heads, whoever comes with a whole request is served.
        """
        if len(self.connections) <= self._limit:
            return True
        if not self._without_request:
            return False
        oldest, _ = self._without_request.popitem(last=False)
        oldest.abort()
        return True

    def close_overdue(self, elapsed_seconds: float) -> None:
        """Let so much time pass, and end those that have kept us waiting for too long."""
        self.now += min(elapsed_seconds, LONGEST_LOOK_SECONDS)
        for client in cast("list[HttpConnection]", list(self.connections)):
            try:
                client.close_if_overdue(self.now)
            except Exception:  # Whatever it is, the others must go on.
                logger.exception("Bug: a connection could not be looked at.")
                client.abort()


def raise_file_limit() -> int:
    """Let this process open as many files as it is allowed to; gives how many connections of clients fit.

    Half of the files: the rest is for those that were closed but are not gone yet, those that come at once before any
    can be closed, and what we open ourselves.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # macOS says that there is no limit, and then has one.
        logger.info("The limit of open files stays as it is.")
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if files == resource.RLIM_INFINITY else min(files // 2, MAX_CONNECTIONS)
