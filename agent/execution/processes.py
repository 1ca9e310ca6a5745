"""Runs the command of one task with its pipes, under a process reaper that ends all its processes together.

Keeps a limited part of the output; callers interpret it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from agent.execution import process_reaper

KEPT_BYTES = 500_000
"""The kept beginning of standard output: more cannot be stored with a task."""
TAIL_BYTES = 4_000
"""The kept end of standard error, and of both streams together."""
READ_BYTES = 65_536
DRAIN_SECONDS = 5.0
"""Time limit for draining the pipes after the reaper has ended: an escaped process may hold them open."""


class Process:
    """A running command."""

    def __init__(self, command: Sequence[str], *, input: Path, environment: Mapping[str, str]) -> None:
        """Start the command with a file as its standard input. Raises OSError or ValueError if it cannot be started."""
        self._ending = threading.Lock()
        lifeline, self._hold = os.pipe()
        try:
            with input.open("rb") as stdin:
                # Isolated mode, since directory and environment are the command's, not the reaper's.
                self._reaper = subprocess.Popen(  # noqa: S603
                    [sys.executable, "-I", "-S", process_reaper.__file__, str(lifeline), *command],
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=dict(environment),
                    pass_fds=[lifeline],
                    start_new_session=True,
                )
        except BaseException:
            self.end()
            raise
        finally:
            os.close(lifeline)
        self._lock = threading.Lock()
        self._output, self._errors, self._both = bytearray(), bytearray(), bytearray()
        self.output_size = 0
        assert self._reaper.stdout is not None
        assert self._reaper.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (self._reaper.stdout, self._reaper.stderr)
        ]
        for reader in self._readers:
            reader.start()

    @property
    def output(self) -> bytes:
        """The beginning of standard output, which has `output_size` bytes in all."""
        with self._lock:
            return bytes(self._output)

    @property
    def errors(self) -> bytes:
        """The end of standard error."""
        with self._lock:
            return bytes(self._errors)

    @property
    def tail(self) -> bytes:
        """The end of standard output and standard error, interleaved as they arrived."""
        with self._lock:
            return bytes(self._both)

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait until no process is left. Returns the exit code: 128 plus the number of a signal, 126 or 127 for a
        command that could not be started. Returns None if the time is over before."""
        try:
            code = self._reaper.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self.end()
        for reader in self._readers:
            reader.join(DRAIN_SECONDS)
        return code if code >= 0 else process_reaper.BY_SIGNAL - code

    def end(self) -> None:
        """Terminate all processes within seconds. Does not wait. Repeatable."""
        with self._ending:
            hold, self._hold = self._hold, -1
        if hold >= 0:
            os.close(hold)

    def kill(self) -> None:
        """Kill all processes at once. Does not wait. Repeatable."""
        with suppress(ProcessLookupError):
            self._reaper.send_signal(signal.SIGTERM)

    def _read(self, stream: IO[bytes]) -> None:
        is_output = stream is self._reaper.stdout
        with stream:
            while part := os.read(stream.fileno(), READ_BYTES):
                with self._lock:
                    if is_output:
                        self.output_size += len(part)
                        self._output += part[: KEPT_BYTES - len(self._output)]
                    else:
                        _keep_end(self._errors, part)
                    _keep_end(self._both, part)


def _keep_end(kept: bytearray, part: bytes) -> None:
    kept += part
    del kept[:-TAIL_BYTES]
