"""Reads the description of the stack that runs on a data folder.

A folder may be anybody's, such as an unpacked archive or one in /tmp. A description is therefore trusted only while a
process holds the folder's lock; links are not followed, and files of other users are not read.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from pathlib import Path
from typing import Any

from models.errors import SettingsError, Unavailable

LARGEST_FILE_BYTES = 65_536


def running_stack(data_dir: Path) -> dict[str, Any] | None:
    """Read the description of the stack that holds the data folder's lock, or return None. Raises Unavailable while it
    is starting or stopping, and SettingsError for another user's files."""
    lock = _open(data_dir / "stack.lock")
    if lock is None:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    else:
        return None
    finally:
        os.close(lock)
    try:
        description = json.loads(read_own(data_dir / "stack.json") or "")
    except ValueError:
        raise Unavailable(f"The stack on {data_dir} is starting or stopping. Try again.") from None
    return description if isinstance(description, dict) else None


def read_own(path: Path) -> str | None:
    """Read a small file of this user, or return None for a missing one. Raises SettingsError for any other file."""
    descriptor = _open(path)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read(LARGEST_FILE_BYTES).decode(errors="replace")


def _open(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SettingsError(f"Cannot read {path}.", hint=error.strerror) from error
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
        return descriptor
    os.close(descriptor)
    raise SettingsError(
        f"{path} is not trusted, because you do not own it.",
        hint="Set RELAY_URL and API_KEY, or run this as the owner of the stack.",
    )
