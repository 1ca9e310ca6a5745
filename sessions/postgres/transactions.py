"""Transactions with few round trips: BEGIN, time limits and savepoints are sent with the statement that follows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from psycopg2.extensions import TRANSACTION_STATUS_IDLE, connection, cursor
from sqlalchemy import Connection

_NUMBERS = itertools.count(1)


class FewRoundTrips(connection):
    """A connection of psycopg2, in whose transactions `pending` statements wait for the next one. Psycopg2 itself would
    send BEGIN on its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.autocommit = True
        self.cursor_factory = _Cursor
        self.pending: list[str] = []

    def cursor(self, name: str | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """Return a cursor. One with a name is closed before the transaction ends; psycopg2 does not know of the
        transaction, and would refuse a name without `withhold`."""
        if name is None:
            return super().cursor(**kwargs)
        return super().cursor(name, cursor_factory=_NamedCursor, withhold=True)

    def commit(self) -> None:
        """Commit the transaction, unless nothing was sent in it."""
        self._end("COMMIT")

    def rollback(self) -> None:
        """Roll back the transaction, unless nothing was sent in it."""
        self.pending.clear()
        self._end("ROLLBACK")

    def take_pending(self) -> bytes:
        """Return the pending statements as the beginning of the next message."""
        taken = "".join(f"{statement}; " for statement in self.pending).encode()
        self.pending.clear()
        return taken

    def send_pending(self) -> None:
        """Send the pending statements by themselves."""
        if self.pending:
            statements = self.take_pending()
            with self.cursor() as sender:
                sender.execute(statements)

    def _end(self, statement: str) -> None:
        if self.get_transaction_status() == TRANSACTION_STATUS_IDLE:
            self.pending.clear()
            return
        with self.cursor() as sender:
            sender.execute(statement)


class _Cursor(cursor):
    def execute(self, query: Any, vars: Any = None) -> None:
        made = cast("FewRoundTrips", self.connection)
        if made.pending:
            statement = self.mogrify(query, vars)  # Raises for a value that cannot be converted: nothing is sent then.
            query, vars = made.take_pending() + statement, None
        super().execute(query, vars)

    def executemany(self, query: Any, vars_list: Any) -> None:
        cast("FewRoundTrips", self.connection).send_pending()
        super().executemany(query, vars_list)


class _NamedCursor(cursor):
    def execute(self, query: Any, vars: Any = None) -> None:
        cast("FewRoundTrips", self.connection).send_pending()
        super().execute(query, vars)


def begin_with(connection: Connection, *statements: str) -> None:
    """Begin the transaction with these statements, before its first one."""
    _raw(connection).pending[:0] = statements


def send_with_next(connection: Connection, statement: str) -> None:
    """Send a statement that returns nothing together with the next one of the transaction."""
    _raw(connection).pending.append(statement)


@contextmanager
def savepoint(connection: Connection) -> Iterator[None]:
    """Roll back the statements of the block if it raises. Costs a round trip only then."""
    name = f"s{next(_NUMBERS)}"
    begin, pending = f"SAVEPOINT {name}", _raw(connection).pending
    pending.append(begin)
    try:
        yield
    except BaseException:
        if begin in pending:
            del pending[pending.index(begin) :]
        elif not connection.invalidated:
            pending.clear()
            connection.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}")
        raise
    if begin in pending:
        del pending[pending.index(begin) :]
    else:
        pending.append(f"RELEASE SAVEPOINT {name}")


def _raw(connection: Connection) -> FewRoundTrips:
    return cast("FewRoundTrips", connection.connection.dbapi_connection)
