"""Removes a directory tree of any depth, size and file modes, as commands may leave it behind."""

from __future__ import annotations

import os
import secrets
import stat
from itertools import islice
from pathlib import Path

AT_A_TIME = 1_000
"""The number of names held in memory."""


def remove_tree(folder: Path) -> None:
    """Remove a directory tree without following links. Raises OSError if something cannot be removed."""
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
    """Remove the files of a subdirectory of `top`, and move its directories to `top`: so neither paths nor the stack
    grow."""
    os.chmod(name, 0o700, dir_fd=top)
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        while names := _names(folder):
            for entry in names:
                if not _unlink(entry, folder):
                    os.chmod(entry, 0o700, dir_fd=folder)  # The owner needs this mode to move it.
                    os.rename(entry, f"removed-{secrets.token_hex(8)}", src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in islice(entries, AT_A_TIME)]


def _unlink(name: str, folder: int) -> bool:
    """Remove a file. Returns False for a directory."""
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        return False
    os.unlink(name, dir_fd=folder)
    return True
