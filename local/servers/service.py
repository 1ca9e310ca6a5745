"""What a server of the local stack is to those who run it: a child process, its URL, and how to see that it answers."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from local.data_dir import Lock
from models.errors import RelayError
from worker.supervision import Child

LOG_BYTES = 10 * 1_048_576
"""A log that is larger when its process is started anew makes room for a new one; one older log is kept."""
TAIL_LINES = 8
TAIL_BYTES = 8_192

Say = Callable[[str], None]
"""Takes a line for the person at the terminal."""


class StartError(RelayError):
    """A part of the stack does not start."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """A server that is ready to be started. It holds the lock on its data until it is released."""

    title: str
    child: Child
    url: str
    answers: Callable[[], bool]
    role: str
    home: Path
    sockets: Path
    lock: Lock

    def release(self) -> None:
        """Give up its data, once it runs no more. May be repeated."""
        if self.sockets != self.home:
            with suppress(OSError):
                self.sockets.rmdir()
        self.lock.release()


def silent(line: str) -> None:
    """Say nothing."""


def log_file(data_dir: Path, name: str) -> Path:
    """Where the process of that name logs to, appended; made smaller when it has grown too large."""
    folder = data_dir / "logs"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{name}.log"
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_suffix(".log.old"))
    return path


def last_lines(log: Path | None) -> str:
    """The end of a log, indented."""
    if log is None or not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])
