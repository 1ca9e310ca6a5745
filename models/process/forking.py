"""Starts a child process as a copy of this one, so that it need not import again what this process has imported.

Only for processes with one thread and no connections: a copy shares their locks and sockets. Call it on Linux only:
libraries of macOS may fail in a copy.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NoReturn

from models.process.parent_death import VARIABLE

POLL_SECONDS = 0.01
FIRST_FILE = 3
MAX_FILES = 65_536
"""Files that this process has open have lower numbers."""


class ForkedProcess:
    """A child that does `work` and ends. It has the methods of subprocess.Popen that a supervisor calls."""

    def __init__(self, work: Callable[[], object], *, name: str, inherited: Collection[int] = ()) -> None:
        """Start it, with a pipe as its stdin, in its own process group. `ps` shows the name. Of the files of this
        process, it keeps the standard streams and the `inherited` ones. Raises OSError."""
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        read_end, write_end = os.pipe()
        # A signal that came before the child has its own handlers would be lost.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.pid = os.fork()
            if self.pid == 0:
                _run(work, name=name, inherited=inherited, stdin=read_end, mask=mask)
        except OSError:
            os.close(write_end)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(read_end)
        with suppress(OSError):  # The child does the same; either may be first.
            os.setpgid(self.pid, self.pid)
        self.stdin: BinaryIO = os.fdopen(write_end, "wb")

    def poll(self) -> int | None:
        """Return its exit code, or minus the number of the signal that ended it; None while it runs."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # Whoever started this process ignores SIGCHLD: the kernel keeps no status.
                pid, status = self.pid, 0
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout_seconds: float) -> int:
        """Return its exit code, once it has ended. Raises subprocess.TimeoutExpired."""
        limit_at = time.monotonic() + timeout_seconds
        while (code := self.poll()) is None:
            if time.monotonic() >= limit_at:
                raise subprocess.TimeoutExpired("a copy of this process", timeout_seconds)
            time.sleep(POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _run(
    work: Callable[[], object], *, name: str, inherited: Collection[int], stdin: int, mask: Collection[int]
) -> NoReturn:
    """Do the work in the child, and end it without returning to the code of the parent."""
    code = 1
    try:
        os.setpgid(0, 0)
        os.dup2(stdin, 0)
        # Above all the pipes of its siblings, which would not see the end of the parent while it has them open.
        first = FIRST_FILE
        for kept in [*sorted(inherited), MAX_FILES]:
            os.closerange(first, kept)
            first = kept + 1
        _reset_signal_handlers()
        with suppress(OSError):  # Only for people who look at processes.
            Path("/proc/self/comm").write_text(name)
        os.environ[VARIABLE] = "1"
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        work()
        code = 0
    except SystemExit as exit_request:
        code = exit_request.code if isinstance(exit_request.code, int) else int(exit_request.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _reset_signal_handlers() -> None:
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
