"""The whole stack in its order: leftovers, ports, servers, migrations, processes; kept alive; and stopped in reverse.

The servers are described in postgres.py and valkey.py; the keeping alive is the supervisor's.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from local.data_dir import FolderId, Lock, find_folders, kept_secret, make_data_dir, missing_folder, write_private
from local.servers import postgres, valkey
from local.servers.orphans import end_orphans, mark
from local.servers.service import Say, Service, StartError, last_lines, log_file
from local.stack.console import Console, closing_block
from local.stack.environment import answers, child_environment, free_port, free_port_or_other, local_url
from models.routes import path_to
from models.settings import Settings
from worker.supervision import Child, ChildProcess, Supervisor, UnexpectedExit

ROLE = "process"
PROJECT = Path(__file__).resolve().parent.parent.parent
PROCESSES = {"worker": "worker", "dashboard": "worker.dashboard", "relay": "api"}
"""Each process with its module, in the order of the start."""
STOP_SECONDS = 30.0
"""For each process; the worker gives its own processes 20 s to finish the drain in hand."""
SERVER_START_SECONDS = 120.0
"""Recovery after a crash replays a log."""
PROCESS_START_SECONDS = 60.0
HOPELESS_FAILURES = 4
"""What ends this often before it has ever answered is not going to: then the start as a whole has failed."""
POLL_SECONDS = 0.1


class Stopped(Exception):
    """The stack was asked to stop."""


class Prepare(Protocol):
    """Makes a server ready to be started."""

    def __call__(self, data_dir: Path, *, say: Say) -> Service: ...


class Stack:
    """One stack on one data folder. `run` is called once; `stop` may come from a signal handler."""

    def __init__(self, settings: Settings, environment: Mapping[str, str], *, console: Console) -> None:
        self._settings = settings
        self._environment = environment
        self._console = console
        self._data_dir = make_data_dir(Path(settings.data_dir))
        self._supervisor = Supervisor(on_death=self._report)
        self._services: list[Service] = []
        self._folders: Mapping[Path, FolderId] = {}
        """Those that the servers write to; gone, what they answer is lost with their end."""
        self._stopping = threading.Event()
        self._stops = 0

    def stop(self) -> None:
        """Ask `run` to stop everything and return; asked again, whatever is left is killed."""
        self._stops += 1
        self._stopping.set()

    def run(self) -> None:
        """Start everything, keep it alive until `stop`, end everything. Raises what prevented the start."""
        lock = Lock(self._data_dir / "stack.lock", subject=f"The data folder {self._data_dir}")
        try:
            self._start()
            while True:
                self._tend()
        except Stopped:
            self._console.say("Stopping.")
        finally:
            self._end()
            lock.release()

    def _start(self) -> None:
        if ended := end_orphans(self._data_dir, ROLE):
            self._console.say(f"A killed stack had left these, which are now stopped: {', '.join(ended)}.")
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
            )
        )

    def _prepare_environment(self) -> dict[str, str]:
        """What all processes are given, but for the URLs of the servers. Raises SettingsError for a port in use."""
        settings = self._settings
        port = free_port(settings.host, settings.port, variable="PORT")
        # A port that somebody asked for is taken or refused; the default one is not worth a failed start.
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
        return f"Processes (the dashboard on port {dashboard_port}, since {wanted} is taken)"

    def _serve(self, title: str, prepare: Prepare) -> str:
        """Start an embedded server and return its URL once it answers."""
        with self._console.step(title):
            service = prepare(self._data_dir, say=self._console.say)
            self._services.append(service)
            self._supervisor.start(service.child)
            self._wait_for(service.child.name, lambda pid: service.answers(), limit_seconds=SERVER_START_SECONDS)
        return service.url

    def _migrate(self, environment: Mapping[str, str]) -> None:
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
            raise StartError(f"The migration {ended} ({log}):\n{last_lines(log)}")

    def _start_processes(self, environment: Mapping[str, str]) -> None:
        for name, module in PROCESSES.items():
            self._supervisor.start(
                Child(
                    name=name,
                    command=(sys.executable, "-m", module),
                    environment=environment,
                    folder=PROJECT,
                    log=log_file(self._data_dir, name),
                    stop_timeout_seconds=STOP_SECONDS,
                )
            )

    def _wait_for(self, name: str, answers: Callable[..., bool], *, limit_seconds: float) -> None:
        limit_at = time.monotonic() + limit_seconds
        while (pid := self._supervisor.pid(name)) is None or not answers(pid=pid):
            if time.monotonic() > limit_at or self._supervisor.failures(name) >= HOPELESS_FAILURES:
                log = log_file(self._data_dir, name)
                raise StartError(f"The {name} does not start. The end of {log}:\n{last_lines(log)}")
            self._tend()

    def _tend(self) -> None:
        """Look after the children, then rest a moment. Raises Stopped when that was asked for."""
        if self._stopping.wait(POLL_SECONDS):
            raise Stopped
        if gone := missing_folder(self._folders):
            raise StartError(
                f"{gone} was deleted or replaced while the stack ran. All is stopped, since what would be stored now "
                "would be lost. Start it again; it begins with what is in the folder then."
            )
        self._supervisor.tend()

    def _report(self, death: UnexpectedExit) -> None:
        """Tell of each first death, and then ever more rarely of one that keeps dying, with what it said last."""
        if death.failures & (death.failures - 1):
            return
        line = f"The {death.child.name} {death.reason}; it starts again in {death.restart_in_seconds:.1f} s."
        if death.failures > 1:
            line += f" ({death.failures} times in a row.) The end of {death.child.log}:\n{last_lines(death.child.log)}"
        self._console.say(line)

    def _end(self) -> None:
        """Stop the processes, then the servers, and look that nobody stayed behind."""
        self._supervisor.stop(hurry=lambda: self._stops > 1)
        end_orphans(self._data_dir, ROLE)
        for service in self._services:
            end_orphans(self._data_dir, service.role, home=service.home)
            service.release()
        (self._data_dir / "stack.json").unlink(missing_ok=True)
