"""session-cli in a process forked from one that has imported it, since the imports would take most of its time."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from cli.main import main
from tests.support.processes.fork_server import context


class ForkedCli:
    """One run, with all three standard streams on the terminal given."""

    def __init__(
        self, terminal: int, *, arguments: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> None:
        with Connection(os.dup(terminal)) as passed:  # Unlike a number, it can be sent to another process.
            self._process = context.Process(target=_run, args=(passed, arguments, dict(environment), folder))
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def wait(self, timeout: float) -> int:
        """Return its exit code, once it has ended."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, "It has not ended."
        return self._process.exitcode


def _run(terminal: Connection, arguments: Sequence[str], environment: dict[str, str], folder: Path) -> None:
    os.setsid()
    for standard in range(3):
        os.dup2(terminal.fileno(), standard)
    terminal.close()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["session-cli", *arguments]
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(fd, mode, encoding="utf-8") for fd, mode in enumerate("rww"))
    sys.exit(main())
