"""Transactions that send BEGIN, limits and savepoints with the statement that follows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, StatementError

from models.settings import Settings
from sessions.postgres import connections
from sessions.postgres.connections import ONE_STATE, create_engine
from sessions.postgres.reads.read_scope import stream
from sessions.postgres.transactions import FewRoundTrips, savepoint


@pytest.fixture
def own_engine(settings: Settings) -> Iterator[Engine]:
    """An engine with one connection."""
    engine = create_engine(settings, application_name="tests", pool_size=1)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(own_engine: Engine) -> Iterator[Connection]:
    """A connection in a transaction with a table of its own."""
    with own_engine.connect() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE things (name text) ON COMMIT DELETE ROWS"))
        yield connection
        connection.rollback()


def put(connection: Connection, name: str) -> None:
    connection.execute(text("INSERT INTO things VALUES (:name)"), {"name": name})


def names(connection: Connection) -> list[str]:
    return list(connection.scalars(text("SELECT name FROM things ORDER BY name")))


def end_process_of(connection: Connection, engine: Engine) -> int:
    """End the server's process of a connection. Returns its id."""
    process = connection.scalar(text("SELECT pg_backend_pid()"))
    with engine.connect() as other:
        other.execute(text("SELECT pg_terminate_backend(:process, 5000)"), {"process": process})
    return int(process)


def is_in_transaction(connection: Connection) -> bool:
    """Whether an earlier statement's advisory lock is still held: without a transaction it ends with the statement."""
    return bool(
        connection.scalar(
            text("SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
        )
    )


def test_a_transaction_has_its_limits_from_the_first_statement_and_ends(own_engine: Engine) -> None:
    with own_engine.begin() as connection:
        assert connection.scalar(text("SELECT current_setting('lock_timeout')")) == "5s"
        connection.execute(text("SELECT pg_advisory_xact_lock(1)"))
        assert is_in_transaction(connection)
    with own_engine.connect() as connection:
        raw = cast("FewRoundTrips", connection.connection.dbapi_connection)
        with raw.cursor() as cursor:
            cursor.execute("SELECT current_setting('lock_timeout'), current_setting('timezone')")
            limits = cursor.fetchone()
        assert limits != ("5s", "UTC")
        assert not is_in_transaction(connection)


def test_a_transaction_can_be_rolled_back(connection: Connection) -> None:
    put(connection, "a")
    connection.rollback()
    connection.execute(text("CREATE TEMPORARY TABLE things (name text)"))
    assert names(connection) == []


def test_all_statements_see_one_state_if_asked_for(own_engine: Engine) -> None:
    with own_engine.execution_options(**{ONE_STATE: True}).begin() as connection:
        assert connection.scalar(text("SHOW transaction_isolation")) == "repeatable read"
    with own_engine.begin() as connection:
        assert connection.scalar(text("SHOW transaction_isolation")) == "read committed"


def test_a_value_that_cannot_be_sent_leaves_the_transaction_to_the_next_statement(own_engine: Engine) -> None:
    with own_engine.begin() as connection:
        with pytest.raises((ValueError, StatementError)):
            connection.execute(text("SELECT :text"), {"text": "\0"})
        connection.execute(text("SELECT pg_advisory_xact_lock(1)"))
        assert is_in_transaction(connection)


@pytest.mark.parametrize("fails_first", [True, False])
def test_a_savepoint_undoes_only_its_block(connection: Connection, fails_first: bool) -> None:
    put(connection, "before")

    def fail() -> None:
        with savepoint(connection):
            if not fails_first:
                put(connection, "within")
            connection.execute(text("SELECT 1 / 0"))

    with pytest.raises(DBAPIError):
        fail()
    put(connection, "after")
    assert names(connection) == ["after", "before"]


def test_savepoints_are_nested_and_may_be_empty(connection: Connection) -> None:
    def fail() -> None:
        with savepoint(connection):
            with savepoint(connection):
                put(connection, "undone")
            raise ZeroDivisionError

    with savepoint(connection):
        put(connection, "outer")
        with savepoint(connection), savepoint(connection):
            pass
        with savepoint(connection):
            put(connection, "kept")
        with pytest.raises(ZeroDivisionError):
            fail()
        with pytest.raises(ZeroDivisionError), savepoint(connection):
            raise ZeroDivisionError
        assert names(connection) == ["kept", "outer"]
    assert names(connection) == ["kept", "outer"]


def test_a_savepoint_whose_connection_is_lost_raises_the_loss(own_engine: Engine, engine: Engine) -> None:
    def lose() -> None:
        with own_engine.begin() as connection, savepoint(connection):
            end_process_of(connection, engine)
            connection.execute(text("SELECT 1"))

    with pytest.raises(DBAPIError) as caught:
        lose()
    assert connections.is_unavailable(caught.value)


def test_a_connection_that_was_lost_while_it_was_idle_is_replaced(
    own_engine: Engine, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "CHECKED_AFTER_SECONDS", 0.0)
    with own_engine.connect() as connection:
        raw = cast("FewRoundTrips", connection.connection.dbapi_connection)
    process = raw.info.backend_pid
    with engine.connect() as other:
        other.execute(text("SELECT pg_terminate_backend(:process, 5000)"), {"process": process})
    with own_engine.begin() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) != process


def test_streamed_rows_leave_no_cursor_behind(own_engine: Engine) -> None:
    with own_engine.begin() as connection:
        rows = stream(connection, text("SELECT n, pg_advisory_xact_lock(1) FROM generate_series(1, 10000) n"))
        assert next(rows)[0] == 1
        assert is_in_transaction(connection)
        assert connection.scalar(text("SELECT count(*) FROM pg_cursors WHERE is_holdable")) == 1
        del rows
        assert connection.scalar(text("SELECT count(*) FROM pg_cursors")) == 0
        assert sum(1 for _ in stream(connection, text("SELECT n FROM generate_series(1, 10000) n"))) == 10_000
    with own_engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM pg_cursors")) == 0
