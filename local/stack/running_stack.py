"""The stack that runs on a data folder, as it describes itself: believed only while it runs, and if it is this user's.

A folder may be anybody's, such as one that was unpacked or lies in /tmp. So nothing counts that no living process
vouches for, no link is followed, and no file of another user is read.
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
    """What the stack that holds the data folder says of itself; None if none does. Raises Unavailable while it is being
    started, and SettingsError for what is another user's."""
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
        raise Unavailable(f"The stack on {data_dir} is being started, or stopped.") from None
    return description if isinstance(description, dict) else None


def read_own(path: Path) -> str | None:
    """The text of a small file of this user; None if there is none. Raises SettingsError for any other."""
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
        raise SettingsError(f"{path} cannot be read.", hint=error.strerror) from error
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
        return descriptor
    os.close(descriptor)
    raise SettingsError(
        f"{path} is not a file of yours, so what it says is not believed.",
        hint="Set RELAY_URL and API_KEY, or run this as the user whose stack it is.",
    )
