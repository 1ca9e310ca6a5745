"""A limit on the time that all statements of one read take together, kept by the server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, event

from sessions.postgres.connections import STATEMENT_TIMEOUT_SECONDS

UNCHANGED_SHARE = 0.8
"""A statement that has so much left of what the one before it had goes on with its limit, which saves a round trip."""


class OutOfTime(Exception):
    """The time was over before a statement began."""


@contextmanager
def time_limit(connection: Connection, seconds: float) -> Iterator[None]:
    """Limit the statements within the block, which may take no longer together, nor one of them longer than any other
    statement. The server ends the one that runs when the time is over; the next raises OutOfTime. In a transaction that
    goes on after the block, lift the limit."""
    ends_at = time.monotonic() + seconds
    limit_seconds = float("inf")

    def limit(connection: Connection, *_: Any) -> None:
        nonlocal limit_seconds
        left = min(ends_at - time.monotonic(), STATEMENT_TIMEOUT_SECONDS)
        if left <= 0:
            raise OutOfTime
        if not UNCHANGED_SHARE * limit_seconds <= left <= limit_seconds:
            limit_seconds = left
            cursor = connection.connection.cursor()  # The connection itself would ask for the limit of this, too.
            cursor.execute(_set_timeout(left))
            cursor.close()

    event.listen(connection, "before_cursor_execute", limit)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", limit)


def lift_time_limit(connection: Connection) -> None:
    """Let the statements that follow in the transaction take as long as any. Raises what any statement may raise: the
    limit holds for this one, too."""
    connection.exec_driver_sql(_set_timeout(STATEMENT_TIMEOUT_SECONDS))


def _set_timeout(seconds: float) -> str:
    return f"SET LOCAL statement_timeout = {max(1, round(seconds * 1000))}"
