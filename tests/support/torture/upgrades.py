"""Upgrades from the previous release while it runs: the commit before the last migration, with its own code."""

from __future__ import annotations

import io
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
import pytest

from local.servers.embedded import EmbeddedServer
from models.tables import SCHEMA_REVISION
from tests.support.processes.stack import Stack
from tests.support.project import ROOT
from tests.support.servers import execute, migrate, new_database, running_valkey
from tests.support.torture.ledger import EVERYDAY_LOAD, Ledger
from tests.support.torture.rolling import FEW_SENDERS, Stop, new_cluster, start_worker
from tests.support.torture.senders import Failure

TABLES = ("sessions", "conversation_chunks", "memories", "artifacts", "tasks", "agents", "deliveries", "events")
"""Tables that webhooks, claims and reads need."""
LONGEST_WAIT_SECONDS = 0.8
"""For a writer: the attempts of a migration take less, and a loaded machine adds something."""
PROBE_EVERY_SECONDS = 0.01
ROWS_OF_A_SESSION = 1_000
FILL = """
INSERT INTO sessions (session_id, title, participants, context, status, created_by, created_at, last_activity_at)
SELECT 'old-' || n, 'Old session ' || n, '{{}}', '', 'active', 'k', '2026-06-01Z', '2026-06-01Z'
FROM generate_series(1, {sessions}) n;
INSERT INTO memories (session_id, key, revision, type, content, tags, status, created_by, created_at, updated_at,
    search_text)
SELECT 'old-' || (n % {sessions} + 1), 'key-' || n, 1, 'decision', json_build_object('what', 'We picked number ' || n),
    '{{}}', 'open', 'k', '2026-06-02Z', '2026-06-02Z', 'We picked number ' || n
FROM generate_series(1, {rows}) n;
"""


def unpack_previous_release(folder: Path) -> None:
    """Write the files of the commit before the last migration into a folder. Skips the test where the clone does not
    have that commit."""
    path = f"alembic/versions/{SCHEMA_REVISION}_*.py"
    added = _git("log", "--diff-filter=A", "--format=%H", "-1", "--", path).decode().strip()
    if not added:
        pytest.skip(f"Migration {SCHEMA_REVISION} is not committed yet, or this is no clone.")
    parent = f"{added}~1"
    if not _git("rev-parse", "--verify", "--quiet", f"{parent}^{{commit}}"):
        pytest.skip("The clone is shallow: it does not have the commit before the last migration.")
    with tarfile.open(fileobj=io.BytesIO(_git("archive", parent))) as archive:
        archive.extractall(folder, filter="data")


def upgrade_under_load(postgres: EmbeddedServer, folder: Path, *, rows: int, relays_first: bool) -> None:
    """Migrate a database with so many memories while relays and workers of the previous release run, and then replace
    them one after the other. No attempt of a sender may fail, and no lock may keep one waiting for long."""
    with (
        previous_release(postgres, folder, rows=rows) as (url, root),
        new_cluster(postgres, folder / "cluster", database_url=url, root=root) as cluster,
    ):
        ledger = Ledger(cluster.relays[0], load=FEW_SENDERS, new_client=cluster.new_client)
        with ledger.sending():
            _migrate_watching_locks(url, ledger, rows=rows)
            cluster.roll(ledger, relays_first=relays_first)
        # Relays of the previous release may reset a connection when they stop; its sender repeats the webhook.
        resets = [failure for failure in ledger.failed if any(_was_reset(failure, stop) for stop in cluster.stops)]
        print(f"{len(resets)} connections were reset by a relay of the previous release that stopped")
        failed = [failure for failure in ledger.failed if failure not in resets]
        assert not failed, failed
        ledger.check(pending=True)
        _check_stored(cluster.relays[0], rows)


def upgrade_worker_under_load(postgres: EmbeddedServer, folder: Path, *, rows: int) -> None:
    """Migrate in the same way while one relay and one worker of the previous release run, and then replace the worker.
    No attempt of a sender may fail."""
    with previous_release(postgres, folder, rows=rows) as (url, root), running_valkey() as valkey:
        stack = Stack(database_url=url, redis_url=valkey.url, folder=folder / "stack", workers=1)
        stack.root = root
        with closing(stack):
            stack.start("api")
            start_worker(stack)
            ledger = Ledger(stack, load=EVERYDAY_LOAD)
            with ledger.sending():
                _migrate_watching_locks(url, ledger, rows=rows)
                stack.root = ROOT
                stack.stop("worker")
                start_worker(stack)
                ledger.wait_for_progress()
            assert not ledger.failed, ledger.failed
            ledger.check(pending=True)
            _check_stored(stack, rows)


@contextmanager
def previous_release(postgres: EmbeddedServer, folder: Path, *, rows: int) -> Iterator[tuple[str, Path]]:
    """Return a database with the schema of the previous release and so many memories, and its files."""
    root = folder / "previous"
    unpack_previous_release(root)
    with new_database(postgres, template="template1") as url:
        migrate(url, root=root)
        execute(url, FILL.format(rows=rows, sessions=max(1, rows // ROWS_OF_A_SESSION)))
        yield url, root


def _migrate_watching_locks(url: str, ledger: Ledger, *, rows: int) -> None:
    began_at = time.monotonic()
    with watched_locks(url) as waits:
        migrate(url)
    print(
        f"{rows:,} rows migrated in {time.monotonic() - began_at:.1f} s; the longest of {len(waits)} waits"
        f" for a lock took {max(waits):.3f} s; {ledger.confirmed} confirmed"
    )
    assert max(waits) < LONGEST_WAIT_SECONDS
    ledger.wait_for_progress()


def _was_reset(failure: Failure, stop: Stop) -> bool:
    return failure.url == stop.url and failure.began_at <= stop.ended_at and failure.ended_at >= stop.began_at


def _check_stored(relay: Stack, rows: int) -> None:
    memory = relay.send("retrieve_memory", "old-1", key=f"key-{rows}")["data"]["memory"]
    assert memory["content"] == {"what": f"We picked number {rows}"}


@contextmanager
def watched_locks(database_url: str) -> Iterator[list[float]]:
    """Collect the seconds for which a writer of all tables waits for its locks, again and again within the block."""
    waits: list[float] = []
    done = threading.Event()

    def probe() -> None:
        with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
            while not done.wait(PROBE_EVERY_SECONDS):
                began_at = time.monotonic()
                for table in TABLES:
                    cursor.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE")
                    connection.rollback()
                waits.append(time.monotonic() - began_at)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield waits
    finally:
        done.set()
        thread.join()


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False).stdout
