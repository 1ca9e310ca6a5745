"""A program in a terminal of a given size, with its display and keyboard."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable
from typing import Protocol

END_OF_TERMINAL = errno.EIO
LIMIT_SECONDS = 60.0


class Process(Protocol):
    """A started program, such as a Popen."""

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its group."""

    def wait(self, timeout: float) -> int:
        """Return its exit code, once it has ended."""


class PseudoTerminal:
    """One run of a program, with all three standard streams on a terminal of its own."""

    def __init__(self, start: Callable[[int], Process], *, columns: int = 80, lines: int = 24) -> None:
        """`start` gets the file descriptor of the terminal, and starts the program in a session of its own."""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._process = start(slave)
        os.close(slave)
        self.shown = ""

    def wait_for(self, text: str) -> str:
        """Read until the text is shown. Returns everything shown so far."""
        limit_at = time.monotonic() + LIMIT_SECONDS
        while text not in self.shown:
            if not self._read(limit_at):
                raise AssertionError(f"It ended without showing {text!r}: {self.shown!r}")
        return self.shown

    def type(self, text: str) -> None:
        """Type on the keyboard."""
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C, for the program and its children."""
        os.killpg(self._process.pid, signal.SIGINT)

    def end(self) -> tuple[int, str]:
        """Read until the program has ended; gives its exit code and all that was shown, lines ended by a mere \\n."""
        limit_at = time.monotonic() + LIMIT_SECONDS
        while self._read(limit_at):
            pass
        code = self._process.wait(timeout=LIMIT_SECONDS)
        os.close(self._master)
        return code, self.shown.replace("\r\n", "\n")

    def kill(self) -> None:
        """Kill it."""
        os.killpg(self._process.pid, signal.SIGKILL)

    def _read(self, limit_at: float) -> bool:
        """Read some output. Returns False at the end."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, limit_at - time.monotonic()))
        if not ready:
            self.kill()
            raise AssertionError(f"Timed out without further output. Shown: {self.shown!r}")
        try:
            part = os.read(self._master, 65_536)
        except OSError as error:
            if error.errno != END_OF_TERMINAL:
                raise
            return False
        self.shown += part.decode(errors="replace")
        return bool(part)
