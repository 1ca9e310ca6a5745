"""Limits the total time of all statements of a read, enforced by the server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, event

from sessions.postgres.connections import STATEMENT_TIMEOUT_SECONDS

UNCHANGED_SHARE = 0.8
"""A statement keeps the previous one's timeout if at least this share of it remains, which saves a round trip."""


class OutOfTime(Exception):
    """The time was used up before a statement began."""


@contextmanager
def time_limit(connection: Connection, seconds: float) -> Iterator[None]:
    """Limit the total time of the statements in the block; each also keeps the normal statement timeout.

    The server cancels the statement that exceeds the limit; a later one raises OutOfTime. If the transaction continues
    after the block, call `lift_time_limit`.
    """
    ends_at = time.monotonic() + seconds
    limit_seconds = float("inf")

    def limit(connection: Connection, *_: Any) -> None:
        nonlocal limit_seconds
        left = min(ends_at - time.monotonic(), STATEMENT_TIMEOUT_SECONDS)
        if left <= 0:
            raise OutOfTime
        if not UNCHANGED_SHARE * limit_seconds <= left <= limit_seconds:
            limit_seconds = left
            cursor = connection.connection.cursor()  # Executing it on the connection would trigger this listener.
            cursor.execute(_set_timeout(left))
            cursor.close()

    event.listen(connection, "before_cursor_execute", limit)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", limit)


def lift_time_limit(connection: Connection) -> None:
    """Restore the normal statement timeout for the rest of the transaction. May raise like any statement, since the
    limit applies to this one, too."""
    connection.exec_driver_sql(_set_timeout(STATEMENT_TIMEOUT_SECONDS))


def _set_timeout(seconds: float) -> str:
    return f"SET LOCAL statement_timeout = {max(1, round(seconds * 1000))}"
