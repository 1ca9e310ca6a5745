"""Starts the stack (orphans, ports, servers, migrations, processes), keeps it running, and stops it in reverse order.

postgres.py and valkey.py define the servers; the supervisor restarts processes that die.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from local.data_dir import (
    FolderError,
    FolderId,
    Lock,
    find_folders,
    kept_secret,
    make_data_dir,
    missing_folder,
    write_private,
)
from local.servers import postgres, valkey
from local.servers.orphans import end_orphans, mark
from local.servers.service import Say, Service, StartError, last_lines, log_file
from local.stack.console import Console, closing_block
from local.stack.environment import answers, child_environment, free_port, free_port_or_other, local_url
from local.stack.log_rotation import LogRotation
from local.stack.running_stack import running_stack
from models.errors import RelayError
from models.process.program import IS_INSTALLED, PROJECT, own_data_dir, python_command
from models.process.supervision import Child, ChildProcess, Supervisor, UnexpectedExit
from models.routes import path_to
from models.settings import Settings

ROLE = "process"
PROCESSES = {"worker": "worker", "dashboard": "worker.dashboard", "relay": "api"}
"""Each process with its module, in start order."""
STOP_SECONDS = 30.0
"""The limit for each process; the worker gives its own processes 20 s to finish the current drain."""
SERVER_START_SECONDS = 120.0
"""Long enough for crash recovery, which replays a log."""
PROCESS_START_SECONDS = 60.0
HOPELESS_FAILURES = 4
"""The number of exits before the first response that makes the whole start fail."""
POLL_SECONDS = 0.1


class Stopped(Exception):
    """A stop of the stack was requested."""


class Prepare(Protocol):
    """Prepares a server for its start."""

    def __call__(self, data_dir: Path, *, say: Say) -> Service: ...


class Stack:
    """A stack on a data folder. `run` is called once; `stop` may be called from a signal handler."""

    def __init__(self, settings: Settings, environment: Mapping[str, str], *, console: Console) -> None:
        self._settings = settings
        self._environment = environment
        self._console = console
        self._data_dir = make_data_dir(Path(settings.data_dir))
        self._supervisor = Supervisor(on_death=self._report)
        self._rotation = LogRotation(self._data_dir / "logs")
        self._services: list[Service] = []
        self._folders: Mapping[Path, FolderId] = {}
        """The folders that the servers write to. If one is deleted, new data is lost when the servers stop."""
        self._stopping = threading.Event()
        self._stops = 0

    def stop(self) -> None:
        """Request `run` to stop everything and return. A second call kills the remaining processes."""
        self._stops += 1
        self._stopping.set()

    def run(self) -> None:
        """Start everything, keep it running until `stop`, and stop it. Raises the error that prevented the start."""
        lock = self._lock()
        try:
            self._start()
            while True:
                self._tend()
        except Stopped:
            self._console.say("Stopping.")
        finally:
            self._end()
            lock.release()

    def _lock(self) -> Lock:
        """Lock the data folder. Raises FolderError with the URL of the stack that runs on it, if one does."""
        try:
            return Lock(self._data_dir / "stack.lock", subject=f"The data folder {self._data_dir}")
        except FolderError:
            running = None
            with suppress(RelayError):  # It is starting or stopping, or another user's.
                running = running_stack(self._data_dir)
            if running is None:
                raise
            place = f"at {running.get('relay_url')} (pid {running.get('pid')}), with its data in {self._data_dir}"
            raise FolderError(
                f"session-relay already runs {place}. Stop it, or set another DATA_DIR and PORT."
            ) from None

    def _start(self) -> None:
        if ended := end_orphans(self._data_dir, ROLE):
            self._console.say(f"Stopped the remaining processes of a killed stack: {', '.join(ended)}.")
        environment = self._prepare_environment()
        environment["DATABASE_URL"] = self._settings.database_url or self._serve(
            postgres.TITLE, postgres.prepare_postgres
        )
        environment["REDIS_URL"] = self._settings.redis_url or self._serve(valkey.TITLE, valkey.prepare_valkey)
        self._folders = find_folders(*(service.home for service in self._services))
        with self._console.step("Migrations"):
            self._migrate(environment)
        relay_url = local_url(self._settings.host, int(environment["PORT"]))
        dashboard_url = local_url(self._settings.dashboard_host, int(environment["DASHBOARD_PORT"]))
        with self._console.step(self._title_of_processes(int(environment["DASHBOARD_PORT"]))):
            self._start_processes(environment)
            for name, url in (("relay", f"{relay_url}{path_to('health')}"), ("dashboard", dashboard_url)):
                self._wait_for(name, partial(answers, url), limit_seconds=PROCESS_START_SECONDS)
        description = {
            "pid": os.getpid(),
            "started_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "relay_url": relay_url,
            "dashboard_url": dashboard_url,
            "database_url": environment["DATABASE_URL"],
            "redis_url": environment["REDIS_URL"],
        }
        write_private(self._data_dir / "stack.json", msgspec.json.encode(description).decode())
        self._console.say(
            closing_block(
                relay_url=relay_url,
                dashboard_url=dashboard_url,
                dashboard_password=environment["DASHBOARD_PASSWORD"],
                api_key=environment["API_KEY"],
                data_dir=self._data_dir,
                program=_command_line(),
                finds_stack=self._data_dir == own_data_dir(self._environment) and not self._settings.api_key,
            )
        )

    def _prepare_environment(self) -> dict[str, str]:
        """Build the environment of all processes, except for the servers' URLs. Raises SettingsError for a port in
        use."""
        settings = self._settings
        port = free_port(settings.host, settings.port, variable="PORT")
        # A configured port is used or fails; the default one is not worth a failed start.
        choose = free_port if self._environment.get("DASHBOARD_PORT", "").strip() else free_port_or_other
        return child_environment(
            {**self._environment, **mark(self._data_dir, ROLE)},
            host=settings.host,
            port=port,
            data_dir=self._data_dir,
            api_key=settings.api_key
            or kept_secret(self._data_dir / "api_key", lambda: f"srk_{secrets.token_urlsafe(24)}"),
            dashboard_port=choose(settings.dashboard_host, settings.dashboard_port, variable="DASHBOARD_PORT"),
            dashboard_password=settings.dashboard_password
            or kept_secret(self._data_dir / "dashboard_password", lambda: secrets.token_urlsafe(12)),
        )

    def _title_of_processes(self, dashboard_port: int) -> str:
        wanted = self._settings.dashboard_port
        if dashboard_port == wanted or wanted == 0:
            return "Processes"
        return f"Processes (dashboard on port {dashboard_port}, since {wanted} is in use)"

    def _serve(self, title: str, prepare: Prepare) -> str:
        """Start an embedded server. Returns its URL once it responds."""
        with self._console.step(title):
            service = prepare(self._data_dir, say=self._console.say)
            self._services.append(service)
            self._supervisor.start(service.child)
            self._wait_for(service.child.name, lambda pid: service.answers(), limit_seconds=SERVER_START_SECONDS)
        return service.url

    def _migrate(self, environment: Mapping[str, str]) -> None:
        """Migrate the database, unless the stack's own Postgres has the latest schema: starting alembic takes a second
        of most starts."""
        url = environment["DATABASE_URL"]
        if not self._settings.database_url and postgres.schema_revision(url) == _latest_revision():
            return
        log = log_file(self._data_dir, "migrations")
        command = (sys.executable, "-m", "alembic", "upgrade", "head")
        migration = ChildProcess(
            Child(name="migrations", command=command, environment=environment, folder=PROJECT, log=log, lifeline=False)
        )
        try:
            while (ended := migration.ended()) is None:
                self._tend()
        finally:
            migration.stop()
        if migration.exit_code != 0:
            raise StartError(f"The migration {ended}. The end of {log}:\n{last_lines(log)}")

    def _start_processes(self, environment: Mapping[str, str]) -> None:
        for name, module in PROCESSES.items():
            log = log_file(self._data_dir, name)
            self._supervisor.start(
                Child(
                    name=name,
                    command=python_command(module),
                    environment={**environment, "LOG_FILE": str(log)},
                    folder=PROJECT,
                    log=log,
                    stop_timeout_seconds=STOP_SECONDS,
                )
            )

    def _wait_for(self, name: str, answers: Callable[..., bool], *, limit_seconds: float) -> None:
        limit_at = time.monotonic() + limit_seconds
        while (pid := self._supervisor.pid(name)) is None or not answers(pid=pid):
            if time.monotonic() > limit_at or self._supervisor.failures(name) >= HOPELESS_FAILURES:
                log = log_file(self._data_dir, name)
                raise StartError(f"The {name} failed to start. The end of {log}:\n{last_lines(log)}")
            self._tend()

    def _tend(self) -> None:
        """Wait a moment, then restart dead processes. Raises Stopped if a stop was requested."""
        if self._stopping.wait(POLL_SECONDS):
            raise Stopped
        if gone := missing_folder(self._folders):
            raise StartError(
                f"{gone} was deleted or replaced while the stack was running. The stack stopped, because new data "
                "would be lost. Start it again; it uses the folder's current contents."
            )
        self._supervisor.tend()
        self._rotation.tend()

    def _report(self, death: UnexpectedExit) -> None:
        """Report a process that died: the first time, then at the 2nd, 4th, 8th … failure in a row, with the end of its
        log."""
        if death.failures & (death.failures - 1):
            return
        line = f"The {death.child.name} {death.reason}; restarting in {death.restart_in_seconds:.1f} s."
        if death.failures > 1:
            line += f" ({death.failures} times in a row.) The end of {death.child.log}:\n{last_lines(death.child.log)}"
        self._console.say(line)

    def _end(self) -> None:
        """Stop the processes, then the servers, and kill orphans."""
        self._supervisor.stop(hurry=lambda: self._stops > 1)
        end_orphans(self._data_dir, ROLE)
        for service in self._services:
            end_orphans(self._data_dir, service.role, home=service.home)
            service.release()
        (self._data_dir / "stack.json").unlink(missing_ok=True)


def _command_line() -> str:
    """Return session-cli as one can type it: from the clone, by its name or, where it is off the PATH, by its path."""
    if not IS_INSTALLED:
        return "bin/session-cli"
    name = "session-cli"
    beside = Path(sys.executable).with_name(name)
    return name if shutil.which(name) or not beside.exists() else shlex.quote(str(beside))


def _latest_revision() -> str:
    """Return the revision up to which alembic migrates: that of the last file."""
    return max(path.name for path in (PROJECT / "alembic" / "versions").glob("[0-9]*.py")).partition("_")[0]
