"""Describes a server of the local stack: its process, URL and health check. Also finds the stack's log files."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from local.data_dir import Lock
from models.errors import RelayError
from models.process.supervision import Child

TAIL_LINES = 8
TAIL_BYTES = 8_192

Say = Callable[[str], None]
"""Prints a line to the user."""


class StartError(RelayError):
    """A part of the stack failed to start."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """A server that is ready to start. It holds the lock on its data until `release`."""

    title: str
    child: Child
    url: str
    answers: Callable[[], bool]
    role: str
    home: Path
    sockets: Path
    lock: Lock

    def release(self) -> None:
        """Release the lock on the data, after the server has stopped. Safe to repeat."""
        if self.sockets != self.home:
            with suppress(OSError):
                self.sockets.rmdir()
        self.lock.release()


def silent(line: str) -> None:
    """Discard a line."""


def log_file(data_dir: Path, name: str) -> Path:
    """Return the path of a process' log, to which it appends."""
    folder = data_dir / "logs"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{name}.log"


def last_lines(log: Path | None) -> str:
    """Read the end of a log, indented."""
    if log is None or not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])
