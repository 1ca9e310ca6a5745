"""Replaces files atomically: readers see the old or the new file, also after a crash."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

PRIVATE = 0o600
"""The mode of a file that only its owner can access."""
NEW_FILE = 0o666
"""The mode of a new file, before the umask."""


@contextmanager
def replacing(path: Path, *, mode: int | None = None, draft: Path | None = None) -> Iterator[BinaryIO]:
    """Open a new file for writing; after the block it is synced to disk and replaces the file at the path.

    If anything raises, the old file remains. By default the new file gets the mode of the old one. It is written next
    to it, under a unique name (`file.name`) or as `draft`, which no other process may write at that time. Raises
    OSError.
    """
    replaced_mode = None
    if mode is None:
        with suppress(FileNotFoundError):
            replaced_mode = path.stat().st_mode & 0o777
        mode = NEW_FILE if replaced_mode is None else replaced_mode
    if draft is None:
        draft = path.with_name(f".{path.name[:40]}-{secrets.token_hex(8)}")
    else:
        draft.unlink(missing_ok=True)  # Left behind by a killed process.
    file = open(draft, "xb", opener=partial(os.open, mode=mode))  # noqa: SIM115
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if replaced_mode is not None:
            draft.chmod(replaced_mode)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk, where the system and the folder's mode allow it. Raises OSError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # The folder is writable but not readable, or this is Windows.
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
