"""Keeps the logs of the local stack small: a large one gets a number, and the oldest is deleted.

The processes of the product and Valkey open a new log when theirs was renamed, so that nothing is lost. Postgres cannot
without a process of its own for that: its log is copied and emptied.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

LARGEST_BYTES = 10 * 1_048_576
"""A log that is larger is rotated."""
KEPT = 4
"""Older logs of each process."""
LOOK_SECONDS = 1.0
KEPT_OPEN = frozenset({"postgres.log"})
"""Logs whose process never opens them again."""


class LogRotation:
    """Rotates the logs in a folder. It acts only inside `tend`, which its owner calls several times a second."""

    def __init__(self, folder: Path, *, largest_bytes: int = LARGEST_BYTES) -> None:
        self._folder = folder
        self._largest_bytes = largest_bytes
        self._look_at = 0.0

    def tend(self) -> None:
        """Rotate the logs that are too large. Looks once in LOOK_SECONDS. A log that cannot be rotated, such as on a
        full disk, is left as it is."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        for path in self._folder.glob("*.log"):
            with suppress(OSError):
                if path.stat().st_size > self._largest_bytes:
                    rotate(path)


def rotate(path: Path) -> None:
    """Give the log the number 1, and each older one the next; the oldest is deleted. Raises OSError."""
    for number in range(KEPT - 1, 0, -1):
        with suppress(FileNotFoundError):
            _numbered(path, number).replace(_numbered(path, number + 1))
    if path.name in KEPT_OPEN:
        _copy_and_empty(path, _numbered(path, 1))
    else:
        path.replace(_numbered(path, 1))


def _copy_and_empty(path: Path, copy: Path) -> None:
    """Move the content of a log that its process keeps open for appending. A line that is written between the last two
    steps, which take microseconds, is lost."""
    try:
        with path.open("r+b") as log, copy.open("wb") as target:
            shutil.copyfileobj(log, target)
            while more := log.read():
                target.write(more)
            target.flush()
            while more := log.read():
                target.write(more)
            log.truncate(0)
    except OSError:
        with suppress(OSError):
            copy.unlink()
        raise


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
