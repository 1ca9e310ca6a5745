"""One real server at a time, held by a handle: for the tests. The stack runs the same services under its supervisor."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from local.data_dir import make_data_dir
from local.servers.orphans import end_orphans
from local.servers.postgres import prepare_postgres
from local.servers.service import Service, StartError, last_lines
from local.servers.valkey import prepare_valkey
from worker.supervision import ChildProcess

START_SECONDS = 60.0
"""Long enough to recover from a crash."""
POLL_SECONDS = 0.01
RETRY_SECONDS = 0.1


class EmbeddedServer:
    """A running server. Its URL stays the same over restarts; `stop` is final for the lock on its data."""

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
        """The process id of its main process."""
        return self._running.pid

    def stop(self) -> None:
        """End it cleanly and give up its data folder. May be repeated, also after `kill`."""
        self._running.stop()
        self._service.release()

    def pause(self) -> None:
        """End it cleanly; `restart` brings it back."""
        self._running.stop()

    def kill(self) -> None:
        """End it and its children as a power cut does; `restart` brings it back."""
        self._running.kill()
        end_orphans(self._data_dir, self._service.role, home=self._service.home)

    def restart(self) -> None:
        """End it cleanly if it runs, and start it again. Returns when it answers."""
        self._running.stop()
        self._running = self._start()

    def _start(self) -> ChildProcess:
        """Start it until it answers: after a crash it may refuse as long as old children of it are alive."""
        limit_at = time.monotonic() + START_SECONDS
        running = ChildProcess(self._service.child)
        while not self._service.answers():
            if time.monotonic() > limit_at:
                running.kill()
                log = self._service.child.log
                raise StartError(f"{self._service.title} does not start ({log}):\n{last_lines(log)}")
            if running.ended():
                time.sleep(RETRY_SECONDS)
                running = ChildProcess(self._service.child)
            time.sleep(POLL_SECONDS)
        return running


def start_postgres(data_dir: Path, *, settings: Mapping[str, str] | None = None) -> EmbeddedServer:
    """Start Postgres on the data in that folder. `settings`: server settings such as fsync. Raises StartError.

    For root the folder must be one that an unprivileged user can enter, or the data go to a folder of the system.
    """
    folder = make_data_dir(data_dir)
    return EmbeddedServer(prepare_postgres(folder, settings=settings), folder)


def start_valkey(data_dir: Path, *, settings: Mapping[str, str] | None = None) -> EmbeddedServer:
    """Start Valkey on the data in that folder. `settings`: server settings such as appendfsync. Raises StartError."""
    folder = make_data_dir(data_dir)
    return EmbeddedServer(prepare_valkey(folder, settings=settings), folder)
