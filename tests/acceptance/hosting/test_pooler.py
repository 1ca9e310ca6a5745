"""Databases behind pgbouncer in transaction mode, and database URLs as hosting platforms write them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
import pytest
from sqlalchemy import Connection, text

from local.operator.migrations import compare
from local.operator.postgres_tools import TargetDatabase
from models.settings import read_settings
from sessions.postgres.connections import create_engine
from tests.support.processes.pooler import Pooler
from tests.support.project import ROOT
from tests.support.servers import migrate

LIMITS = {
    "statement_timeout": "10s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
    "TimeZone": "UTC",
}
MIGRATION_LOCK = 7_305_001


@contextmanager
def transaction(database_url: str) -> Iterator[Connection]:
    engine = create_engine(read_settings({"DATABASE_URL": database_url}), application_name="tests", pool_size=1)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def shown(connection: Connection) -> dict[str, str]:
    return {name: str(connection.scalar(text(f"SHOW {name}"))) for name in LIMITS}


def test_time_limits_apply_to_their_transaction_only(own_database_url: str, pgbouncer: Pooler) -> None:
    url = pgbouncer.url_of(own_database_url)
    with transaction(url) as connection:
        assert shown(connection) == LIMITS
    engine = create_engine(read_settings({"DATABASE_URL": url}), application_name="tests", pool_size=1)
    for level in ("READ COMMITTED", "REPEATABLE READ"):
        with engine.execution_options(isolation_level=level).begin() as connection:
            assert shown(connection) == LIMITS
            assert connection.scalar(text("SHOW transaction_isolation")) == level.lower()
    engine.dispose()
    other = psycopg2.connect(url)
    with other.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)
    other.close()


def test_parameters_for_other_drivers_are_dropped_and_options_kept(own_database_url: str, pgbouncer: Pooler) -> None:
    with transaction(f"{pgbouncer.url_of(own_database_url)}?pgbouncer=true&connection_limit=1") as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    with transaction(f"{own_database_url}&pgbouncer=true&options=-c%20search_path%3Dapp") as connection:
        assert connection.scalar(text("SHOW search_path")) == "app"
        assert shown(connection) == LIMITS


def test_operator_tools_work_on_a_pooled_database(own_database_url: str, pgbouncer: Pooler) -> None:
    assert compare(TargetDatabase(pgbouncer.url_of(own_database_url))).state == "current"


def test_migrations_leave_no_lock_on_a_pooled_connection(own_database_url: str, pgbouncer: Pooler) -> None:
    url = pgbouncer.url_of(own_database_url)
    migrate(url, "downgrade", "-1")
    migrate(url)
    with transaction(own_database_url) as connection:
        held = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = :key")
        assert connection.scalar(held, {"key": MIGRATION_LOCK}) == 0


@pytest.mark.parametrize("through", ["directly", "through pgbouncer"])
def test_a_migration_blocked_by_another_gives_up_with_advice(
    own_database_url: str, request: pytest.FixtureRequest, through: str
) -> None:
    url = own_database_url
    if through != "directly":
        url = request.getfixturevalue("pgbouncer").url_of(url)
    with transaction(own_database_url) as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        command = [sys.executable, "-m", "alembic", "-x", "turn_timeout=200ms", "upgrade", "head"]
        environment = {"DATABASE_URL": url, "PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Another migration of this database has been running for 200ms." in done.stderr
    assert "pg_terminate_backend" in done.stderr
    assert "Traceback" not in done.stderr
