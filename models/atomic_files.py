"""Replaces a file as a whole: a reader finds the old one or the new one, and so does whoever comes after a crash."""

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
"""The mode of a file for its owner alone."""
NEW_FILE = 0o666
"""Less what the umask takes away, as for any new file."""


@contextmanager
def replacing(path: Path, *, mode: int | None = None, draft: Path | None = None) -> Iterator[BinaryIO]:
    """Open a new file to be written within the block; then it is on the disk, and at the path. If the block or anything
    else raises, what was at the path is still there.

    By default it gets the mode of the file that it replaces. It is written beside the path, under a name of its own
    (`file.name`) or as `draft`, which no other process may write at the time. Raises OSError.
    """
    replaced_mode = None
    if mode is None:
        with suppress(FileNotFoundError):
            replaced_mode = path.stat().st_mode & 0o777
        mode = NEW_FILE if replaced_mode is None else replaced_mode
    if draft is None:
        draft = path.with_name(f".{path.name[:40]}-{secrets.token_hex(8)}")
    else:
        draft.unlink(missing_ok=True)  # A process that was killed has left it.
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
    """Make the names in a folder last, where the system and the folder's mode allow it. Raises OSError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # It may be written but not read; or it is Windows'.
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
