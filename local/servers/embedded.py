"""Runs a single server under a handle, for tests and operators' commands. The stack uses its supervisor instead."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from local.data_dir import make_data_dir
from local.servers.orphans import end_orphans
from local.servers.postgres import prepare_postgres
from local.servers.service import Service, StartError, last_lines
from local.servers.valkey import prepare_valkey
from models.process.supervision import ChildProcess

START_SECONDS = 60.0
"""Long enough for crash recovery."""
POLL_SECONDS = 0.01
RETRY_SECONDS = 0.1


class EmbeddedServer:
    """A running server. Its URL stays the same across restarts. `stop` also releases the lock on its data."""

    def __init__(self, service: Service, data_dir: Path) -> None:
        self.url = service.url
        self._service = service
        self._data_dir = data_dir
        try:
            self._running = self._start()
        except BaseException:
            service.release()
            raise

    @property
    def pid(self) -> int:
        """The id of its main process."""
        return self._running.pid

    def stop(self) -> None:
        """Stop it cleanly and release its data folder. Safe to repeat, also after `kill`."""
        self._running.stop()
        self._service.release()

    def pause(self) -> None:
        """Stop it cleanly, keeping its data folder for `restart`."""
        self._running.stop()

    def kill(self) -> None:
        """Kill it and its children, as a power cut would. `restart` starts it again."""
        self._running.kill()
        end_orphans(self._data_dir, self._service.role, home=self._service.home)

    def restart(self) -> None:
        """Stop it cleanly if it is running, and start it again. Returns when it responds."""
        self._running.stop()
        self._running = self._start()

    def _start(self) -> ChildProcess:
        """Start it, retrying until it responds: after a crash it may exit while old children are alive."""
        limit_at = time.monotonic() + START_SECONDS
        running = ChildProcess(self._service.child)
        while not self._service.answers():
            if time.monotonic() > limit_at:
                running.kill()
                log = self._service.child.log
                raise StartError(f"{self._service.title} failed to start. The end of {log}:\n{last_lines(log)}")
            if running.ended():
                time.sleep(RETRY_SECONDS)
                running = ChildProcess(self._service.child)
            time.sleep(POLL_SECONDS)
        return running


def start_postgres(data_dir: Path, *, settings: Mapping[str, str] | None = None) -> EmbeddedServer:
    """Start Postgres on the data in that folder. `settings`: server settings such as fsync. Raises StartError.

    For root, an unprivileged user must be able to enter the folder; otherwise the data is stored in a system folder.
    """
    folder = make_data_dir(data_dir)
    return EmbeddedServer(prepare_postgres(folder, settings=settings), folder)


def start_valkey(data_dir: Path, *, settings: Mapping[str, str] | None = None) -> EmbeddedServer:
    """Start Valkey on the data in that folder. `settings`: server settings such as appendfsync. Raises StartError."""
    folder = make_data_dir(data_dir)
    return EmbeddedServer(prepare_valkey(folder, settings=settings), folder)
