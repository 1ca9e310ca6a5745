"""A real pgbouncer in transaction mode, with its default settings, in front of a Postgres of the tests."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg2
import pytest

from models.process.supervision import Child, ChildProcess
from tests.support.ports import free_port
from tests.support.processes.stack import wait_for

INSTALLED_IN = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
SETTINGS = """
[databases]
* = host={sockets} port=5432 user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
"""


class Pooler:
    """A running pgbouncer."""

    def __init__(self, running: ChildProcess, port: int, folder: Path) -> None:
        self._running = running
        self._port = port
        self._folder = folder

    def url_of(self, database_url: str) -> str:
        """Return the URL of a database of that Postgres through the pooler."""
        return f"postgresql://postgres@127.0.0.1:{self._port}{urlsplit(database_url).path}"

    def stop(self) -> None:
        """Stop it."""
        self._running.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def find_pgbouncer() -> str | None:
    """Return the path of the program, or None where it is not installed."""
    return shutil.which("pgbouncer", path=INSTALLED_IN)


def start_pgbouncer(postgres_url: str) -> Pooler:
    """Start it in front of the Postgres with this URL, as the user who may enter its socket's folder. Skips the test
    where pgbouncer is not installed."""
    program = find_pgbouncer()
    if program is None:
        pytest.skip("pgbouncer is not installed (apt-get install pgbouncer)")
    [sockets] = parse_qs(urlsplit(postgres_url).query)["host"]
    owner = Path(sockets).stat()
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    os.chown(folder, owner.st_uid, owner.st_gid)
    port = free_port()
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(SETTINGS.format(sockets=sockets, port=port))
    configuration.chmod(0o644)
    child = Child(
        name="pgbouncer",
        command=(program, str(configuration)),
        environment={"PATH": INSTALLED_IN},
        folder=folder,
        log=folder / "log",
        account=(owner.st_uid, owner.st_gid) if os.geteuid() == 0 else None,
        lifeline=False,
        stop_signal=signal.SIGTERM,
    )
    pooler = Pooler(ChildProcess(child), port, folder)
    try:
        wait_for(lambda: _answers(pooler.url_of(postgres_url)), what=f"pgbouncer responding ({folder / 'log'})")
    except BaseException:
        pooler.stop()
        raise
    return pooler


def _answers(url: str) -> bool:
    try:
        psycopg2.connect(url, connect_timeout=2).close()
    except psycopg2.OperationalError:
        return False
    return True
