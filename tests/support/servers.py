"""Servers for tests: Postgres on copies of one data folder that the real migrations have prepared once, and Valkey."""

from __future__ import annotations

import atexit
import fcntl
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2

from local.servers.embedded import EmbeddedServer, start_postgres, start_valkey
from tests.support.project import ROOT

NO_SYNC = {"fsync": "off"}
"""Without fsync, a killed process loses nothing that the kernel has. Syncing would only slow the tests down."""
RUN_FOLDER = "SESSION_RELAY_TESTS_FOLDER"
"""The variable that passes the run's folder to its workers."""
MEMORY = Path("/dev/shm")
"""A file system in memory, where Linux has one."""
MEMORY_BYTES = 4 * 1024**3
"""More than the data of all servers of a run."""
TEMPLATE = "migrated"
"""A database without connections, which is cloned."""


def run_folder() -> Path:
    """Return a folder of this process and its children, which the servers' own user can enter even when the tests run
    as root. It is in memory if there is enough: Valkey waits for the disk at each write. It is created on first use,
    and removed when its process ends."""
    if RUN_FOLDER not in os.environ:
        fits = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES and os.access(MEMORY, os.W_OK)
        folder = tempfile.mkdtemp(prefix="session-relay-tests-", dir=MEMORY if fits else None)
        Path(folder).chmod(0o755)
        os.environ[RUN_FOLDER] = folder
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(os.environ[RUN_FOLDER])


def new_folder(name: str) -> Path:
    """Return a path in the run's folder that no other test uses, for new data."""
    return run_folder() / f"{name}-{secrets.token_hex(4)}"


def migrate(database_url: str, *arguments: str, root: Path = ROOT) -> str:
    """Run alembic as an operator would, by default up to the latest schema of the program in that folder. Returns its
    output."""
    command = [sys.executable, "-m", "alembic", *(arguments or ("upgrade", "head"))]
    environment = {**os.environ, "DATABASE_URL": database_url}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def start_migrated_postgres(folder: Path, *, settings: Mapping[str, str] = NO_SYNC) -> EmbeddedServer:
    """Start a Postgres with a migrated database, with its data in the folder."""
    copy_migrated_data(folder)
    return start_postgres(folder, settings=settings)


def copy_migrated_data(folder: Path) -> None:
    """Fill a new folder with the data of a Postgres that is migrated, so that a start there is quick."""
    folder.mkdir(parents=True, mode=0o755, exist_ok=True)
    subprocess.run(["cp", "-a", _prepared_data() / "postgres", folder], check=True)


@contextmanager
def running_postgres() -> Iterator[EmbeddedServer]:
    """Run a migrated Postgres within the block."""
    server = start_migrated_postgres(new_folder("postgres"))
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def running_valkey(*, settings: Mapping[str, str] | None = None) -> Iterator[EmbeddedServer]:
    """Run a Valkey within the block, by default with the durable settings."""
    server = start_valkey(new_folder("valkey"), settings=settings)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def new_database(postgres: EmbeddedServer, *, template: str = TEMPLATE) -> Iterator[str]:
    """Create a database in that Postgres, migrated unless another template is named, and drop it after the block."""
    name = f"own_{secrets.token_hex(6)}"
    execute(postgres.url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    try:
        yield postgres.url.replace("/postgres?", f"/{name}?")
    finally:
        execute(postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


def execute(url: str, statement: str) -> bool:
    """Execute a statement on a separate connection, outside of a transaction. Returns True."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    return True


def _prepared_data() -> Path:
    """Return the data folder that is copied, created by the first process of the run that needs it."""
    folder = run_folder() / "prepared"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            server = start_postgres(folder, settings=NO_SYNC)
            migrate(server.url)
            execute(server.url.replace("/postgres?", "/template1?"), f"CREATE DATABASE {TEMPLATE} TEMPLATE postgres")
            # Copying takes a millisecond for each two files, and a database has hundreds; nothing uses this one.
            execute(server.url, "ALTER DATABASE template0 IS_TEMPLATE false")
            execute(server.url, "DROP DATABASE template0")
            server.stop()
            (folder / "done").touch()
    return folder
