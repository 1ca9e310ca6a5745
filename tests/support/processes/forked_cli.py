"""session-cli in a process forked from one that has imported it, since the imports would take most of its time."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

from cli.main import main
from tests.support.processes.fork_server import context


class ForkedCli:
    """One run, in a session of its own."""

    def __init__(self, *streams: int, arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        """`streams`: its stdin, stdout and stderr, or a terminal for all three."""
        with ExitStack() as copies:
            # Unlike a number, a Connection can be sent to another process.
            passed = [copies.enter_context(Connection(os.dup(stream))) for stream in streams]
            self._process = context.Process(target=_run, args=(passed, arguments, dict(environment), folder))
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return its exit code, or minus the number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """Return its exit code, once it has ended."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, "It has not ended."
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it like kill -9."""
        self.send_signal(signal.SIGKILL)
        self._process.join()


def _run(streams: list[Connection], arguments: Sequence[str], environment: dict[str, str], folder: Path) -> None:
    os.setsid()
    for standard, stream in enumerate(streams * 3 if len(streams) == 1 else streams):
        os.dup2(stream.fileno(), standard)
    for stream in streams:
        stream.close()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["session-cli", *arguments]
    sys.stdin, sys.stdout = (os.fdopen(fd, mode, encoding="utf-8") for fd, mode in enumerate("rw"))
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace")
    sys.exit(main())
