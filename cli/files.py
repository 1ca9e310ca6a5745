"""Writes files atomically, and makes standard input seekable."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from models.atomic_files import replacing

SPOOL_BYTES = 8 * 1_048_576


def save(name: str, parts: Iterable[bytes]) -> None:
    """Write a file atomically: the previous content stays until the new one is complete. A device, or what a link leads
    to, is written in place."""
    path = Path(name)
    # Such as /dev/null, and /dev/stdout, which is a link: neither must be replaced.
    if path.is_symlink() or (path.exists() and not path.is_file()):
        with path.open("wb") as file:
            file.writelines(parts)
        return
    with replacing(path) as file:
        file.writelines(parts)


@contextlib.contextmanager
def reading(name: str) -> Iterator[IO[bytes]]:
    """Open a file, or standard input for `-`, as a seekable stream."""
    if name != "-":
        with open(name, "rb") as file:
            yield file
        return
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
        shutil.copyfileobj(sys.stdin.buffer, spool)
        spool.seek(0)
        yield spool
