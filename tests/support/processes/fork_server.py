"""Programs of this project in processes that are forked from one that has imported them: imports take most of a start.

Apart from that they run as `python -m` runs them, with an environment, folder, output and process group of their own.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

from cli.main import MODULES
from models.process.parent_death import parent_pipe_environment
from models.process.supervision import Child, ChildProcess
from tests.support.project import ROOT

CLI = (
    *(f"cli.commands.{module}" for module in MODULES.values()),
    *("cli.backends.http_backend", "cli.configuration", "cli.output.pager", "cli.output.rich_output", "rich.progress"),
    *("sessions.files.backend", "sessions.postgres.backend"),
)
"""Modules that session-cli imports on first use."""
ROOMS = ("api.app", "relay.app", "relay.processes", "worker.supervisor")
"""Modules that `python -m api`, `relay` and `worker` import."""

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.support.processes.forked_cli", *CLI, *ROOMS])


class ForkedRoom(ChildProcess):
    """A running child whose command is `python -m ROOM`, forked."""

    @staticmethod
    def _launch(child: Child) -> subprocess.Popen[bytes]:
        return _Forked(child)  # type: ignore[return-value]


def run_room(room: str, log: Path, environment: Mapping[str, str], *, seconds: float = 30) -> int:
    """Run `python -m ROOM` until it ends by itself, and return its exit code."""
    running = ForkedRoom(
        Child(name=room, command=(sys.executable, "-m", room), environment=environment, folder=ROOT, log=log)
    )
    limit_at = time.monotonic() + seconds
    try:
        while running.ended() is None:
            assert time.monotonic() < limit_at, log.read_text()
            time.sleep(0.02)
    finally:
        running.kill()
    assert running.exit_code is not None
    return running.exit_code


class _Forked:
    """The process. It has the methods of subprocess.Popen that ChildProcess calls."""

    def __init__(self, child: Child) -> None:
        assert child.log is not None
        self.returncode: int | None = None
        reading, writing = os.pipe()
        self.stdin = os.fdopen(writing, "wb")
        environment = parent_pipe_environment(child.environment)
        with (
            Connection(reading) as passed,
            Connection(os.open(child.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)) as log,
        ):
            arguments = (child.command[-1], environment, child.folder, passed, log)
            self._process = context.Process(target=_run, args=arguments, daemon=True)
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return its exit code, or minus the number of the signal that ended it; None while it runs."""
        if self.returncode is None:
            self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout_seconds: float) -> int:
        """Return its exit code, once it has ended. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout_seconds)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout_seconds)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _run(room: str, environment: Mapping[str, str], folder: Path, stdin: Connection, log: Connection) -> NoReturn:
    os.setpgid(0, 0)
    for number, file in enumerate((stdin, log, log)):
        os.dup2(file.fileno(), number)
    stdin.close()
    log.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.argv = [room]
    code = 1
    try:
        runpy.run_module(room, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(code)
