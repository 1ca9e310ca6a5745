"""Files that are written whole or not at all, and files that are read from their beginning again."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

SPOOL_BYTES = 8 * 1_048_576


def save(name: str, parts: Iterable[bytes]) -> None:
    """Write a file. What was there before stays until all of it is written."""
    path = Path(name)
    if path.exists() and not path.is_file():  # such as /dev/null
        with path.open("wb") as file:
            file.writelines(parts)
        return
    mask = os.umask(0)
    os.umask(mask)
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(parts)
        Path(partial).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~mask)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def reading(name: str) -> Iterator[IO[bytes]]:
    """A file, or standard input for `-`, that can be read from its beginning again."""
    if name != "-":
        with open(name, "rb") as file:
            yield file
        return
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
        shutil.copyfileobj(sys.stdin.buffer, spool)
        spool.seek(0)
        yield spool
