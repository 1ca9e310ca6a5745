"""Transactions of the product's engine."""

from __future__ import annotations

from contextlib import suppress

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, InternalError

INSERT = "INSERT INTO sessions_of_test VALUES (1)"


def test_a_transaction_in_which_a_failed_statement_was_ignored_is_not_reported_as_committed(engine: Engine) -> None:
    with engine.connect() as connection:
        transaction = connection.begin()
        connection.exec_driver_sql("CREATE TEMPORARY TABLE sessions_of_test (number integer)")
        connection.exec_driver_sql(INSERT)
        with suppress(DBAPIError):
            connection.exec_driver_sql("SELECT 1/0")
        with pytest.raises(InternalError, match="current transaction is aborted"):
            transaction.commit()
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT to_regclass('sessions_of_test')").scalar() is None


def test_a_statement_that_failed_in_a_savepoint_does_not_prevent_the_commit(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TEMPORARY TABLE sessions_of_test (number integer) ON COMMIT DROP")
        with suppress(DBAPIError), connection.begin_nested():
            connection.exec_driver_sql("SELECT 1/0")
        connection.exec_driver_sql(INSERT)
