"""The processes of one task: the command with its pipes, under a keeper that ends all of them together.

What their output means is not decided here; no more of it is kept than can be used.
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
"""Of standard output from its beginning: more cannot be stored with a task."""
TAIL_BYTES = 4_000
"""Of standard error, and of both together, from the end."""
READ_BYTES = 65_536
DRAIN_SECONDS = 5.0
"""For the pipes once the keeper has ended: somebody who has got away may hold them open."""


class Process:
    """A command that runs."""

    def __init__(self, command: Sequence[str], *, input: Path, environment: Mapping[str, str]) -> None:
        """Start it with a file as its standard input. Raises OSError or ValueError when that cannot be done."""
        self._ending = threading.Lock()
        lifeline, self._hold = os.pipe()
        try:
            with input.open("rb") as stdin:
                # Isolated, as the folder and the environment are the command's, not the keeper's.
                self._keeper = subprocess.Popen(  # noqa: S603
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
        assert self._keeper.stdout is not None
        assert self._keeper.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (self._keeper.stdout, self._keeper.stderr)
        ]
        for reader in self._readers:
            reader.start()

    @property
    def output(self) -> bytes:
        """The beginning of standard output; of `output_size` bytes in all."""
        with self._lock:
            return bytes(self._output)

    @property
    def errors(self) -> bytes:
        """The end of standard error."""
        with self._lock:
            return bytes(self._errors)

    @property
    def tail(self) -> bytes:
        """The end of what was written, as it came."""
        with self._lock:
            return bytes(self._both)

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit code once nothing of it runs any more: 128 and the number for a signal, 126 or 127 for a command
        that could not be started; None if the time is over before."""
        try:
            code = self._keeper.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self.end()
        for reader in self._readers:
            reader.join(DRAIN_SECONDS)
        return code if code >= 0 else process_reaper.BY_SIGNAL - code

    def end(self) -> None:
        """Have all of it ended within seconds. Does not wait, and may be repeated."""
        with self._ending:
            hold, self._hold = self._hold, -1
        if hold >= 0:
            os.close(hold)

    def kill(self) -> None:
        """Have all of it killed at once. Does not wait, and may be repeated."""
        with suppress(ProcessLookupError):
            self._keeper.send_signal(signal.SIGTERM)

    def _read(self, stream: IO[bytes]) -> None:
        is_output = stream is self._keeper.stdout
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
