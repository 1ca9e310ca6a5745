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
from tests.support.project import ROOT
from tests.support.servers import execute, migrate, new_database
from tests.support.torture.ledger import Ledger
from tests.support.torture.rolling import SENDERS, new_cluster

TABLES = ("sessions", "conversation_chunks", "memories", "artifacts", "tasks", "agents", "deliveries", "events")
"""Tables that webhooks, claims and reads need."""
LONGEST_LOCK_SECONDS = 1.0
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
    them one after the other. No attempt of a sender may fail, and no lock may keep one waiting for a second."""
    previous = folder / "previous"
    unpack_previous_release(previous)
    with new_database(postgres, template="template1") as url:
        migrate(url, root=previous)
        execute(url, FILL.format(rows=rows, sessions=max(1, rows // ROWS_OF_A_SESSION)))
        with new_cluster(postgres, folder / "cluster", database_url=url, root=previous) as cluster:
            ledger = Ledger(cluster.relays[0], senders=SENDERS, new_client=cluster.new_client)
            with ledger.sending():
                began_at = time.monotonic()
                with watched_locks(url) as waits:
                    migrate(url)
                print(
                    f"{rows:,} rows migrated in {time.monotonic() - began_at:.1f} s; the longest of {len(waits)} waits"
                    f" for a lock took {max(waits):.3f} s; {ledger.confirmed} confirmed"
                )
                ledger.wait_for_progress()
                cluster.roll(ledger, relays_first=relays_first)
            assert not ledger.failed, ledger.failed
            assert max(waits) < LONGEST_LOCK_SECONDS
            ledger.check(pending=True)
            memory = cluster.relays[0].send("retrieve_memory", "old-1", key=f"key-{rows}")["data"]["memory"]
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
