"""Migrations of tables that are in use: they wait in short attempts, and keep nobody waiting."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import psycopg2
import pytest
from alembic import command
from alembic.config import Config

from local.operator.migrations import read_revision
from local.operator.postgres_tools import TargetDatabase
from local.servers.embedded import EmbeddedServer, start_postgres
from models.tables import SCHEMA_REVISION
from tests.support.processes.stack import wait_for
from tests.support.project import ROOT
from tests.support.servers import NO_SYNC, copy_migrated_data, execute, new_database, new_folder
from tests.support.torture.upgrades import LONGEST_WAIT_SECONDS, watched_locks

BLOCKED_SECONDS = 1.5
SLOW_VACUUMS = """
ALTER TABLE memories SET (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 1, autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
INSERT INTO sessions (session_id, title, participants, context, status, created_by, created_at, last_activity_at)
VALUES ('old', 'Old', '{}', '', 'active', 'k', '2026-06-01Z', '2026-06-01Z');
INSERT INTO memories (session_id, key, revision, type, content, tags, status, created_by, created_at, updated_at,
    search_text)
SELECT 'old', 'key-' || n, 1, 'decision', '1', '{}', 'open', 'k', '2026-06-02Z', '2026-06-02Z', ''
FROM generate_series(1, 10000) n;
"""
VACUUM_RUNS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND query LIKE '%memories%'"


@pytest.fixture
def url(postgres: EmbeddedServer) -> Iterator[str]:
    """A migrated database."""
    with new_database(postgres) as url:
        yield url


@pytest.fixture
def alembic(url: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Alembic for that database, after the last three migrations were taken back."""
    monkeypatch.setenv("DATABASE_URL", url)
    config = Config(str(ROOT / "alembic.ini"))
    command.downgrade(config, "-3")
    return config


def test_a_long_read_delays_a_migration_but_no_writer(url: str, alembic: Config) -> None:
    below = f"{int(SCHEMA_REVISION) - 1:04d}"
    with watched_locks(url) as waits, ThreadPoolExecutor(1) as pool:
        with reading(url, "conversation_chunks"):
            upgrade = pool.submit(command.upgrade, alembic, "+3")
            wait_for(lambda: revision(url) == below, what="the migrations before it")
            threading.Event().wait(BLOCKED_SECONDS)
            assert revision(url) == below
        # Repeated as a whole, and up to the same target.
        upgrade.result()
    assert revision(url) == SCHEMA_REVISION
    assert max(waits) < LONGEST_WAIT_SECONDS
    command.check(alembic)


def test_a_migration_that_gets_no_lock_changes_nothing_and_names_who_uses_the_tables(url: str, alembic: Config) -> None:
    alembic.cmd_opts = argparse.Namespace(x=["locks_seconds=0.5"])
    with reading(url, "conversation_chunks") as pid, pytest.raises(SystemExit) as failed:
        command.upgrade(alembic, "head")
    assert f"within 0.5 s; nothing of this migration was changed. Process {pid} (backup) uses them" in str(failed.value)
    assert revision(url) == f"{int(SCHEMA_REVISION) - 1:04d}"
    command.upgrade(alembic, "head")
    command.check(alembic)


def test_a_migration_ends_an_autovacuum_and_writers_do_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_folder("postgres")
    copy_migrated_data(folder)
    postgres = start_postgres(folder, settings={**NO_SYNC, "autovacuum_naptime": "1s"})
    try:
        monkeypatch.setenv("DATABASE_URL", postgres.url)
        config = Config(str(ROOT / "alembic.ini"))
        command.downgrade(config, "-1")
        execute(postgres.url, SLOW_VACUUMS)
        wait_for(lambda: query(postgres.url, VACUUM_RUNS) != [], what="autovacuum of the memories")
        with watched_locks(postgres.url) as waits:
            began_at = time.monotonic()
            command.upgrade(config, "head")
        # Postgres ends an autovacuum a second after somebody began to wait for it.
        assert time.monotonic() - began_at > 1
        assert max(waits) < LONGEST_WAIT_SECONDS
    finally:
        postgres.stop()


@contextmanager
def reading(url: str, table: str) -> Iterator[int]:
    """Hold the lock of a long read of a table within the block, as a backup does, and return the reader's process."""
    with closing(psycopg2.connect(url, application_name="backup")) as connection, connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE; SELECT pg_backend_pid()")
        ((pid,),) = cursor.fetchall()
        yield int(pid)


def revision(url: str) -> str | None:
    """Return the revision of a database's schema."""
    return read_revision(TargetDatabase(url))


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    """Return the rows of a query on a separate connection."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()
