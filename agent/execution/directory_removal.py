"""Removes a folder, whatever a command has left in it: however deep, however many, whatever its modes."""

from __future__ import annotations

import os
import secrets
import stat
from itertools import islice
from pathlib import Path

AT_A_TIME = 1_000
"""Names that are held in memory."""


def remove_tree(folder: Path) -> None:
    """Remove it with all that is in it, following no links. Raises OSError for what cannot be removed."""
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while names := _names(top):
            for name in names:
                if not _unlink(name, top):
                    _empty(name, top)
                    os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(folder)


def _empty(name: str, top: int) -> None:
    """Remove the files of a folder in the topmost one, and move its folders there: so no path grows, and no stack."""
    os.chmod(name, 0o700, dir_fd=top)
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        while names := _names(folder):
            for entry in names:
                if not _unlink(entry, folder):
                    os.chmod(entry, 0o700, dir_fd=folder)  # Its owner needs that to move it.
                    os.rename(entry, f"removed-{secrets.token_hex(8)}", src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in islice(entries, AT_A_TIME)]


def _unlink(name: str, folder: int) -> bool:
    """Whether it was no folder, and is gone."""
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        return False
    os.unlink(name, dir_fd=folder)
    return True
