"""Folders under DATA_DIR: private ones, one process at a time in each, short ones for sockets, and kept secrets.

What lies in them belongs to the services and to the stack.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from local.servers.run_as import Account
from models.atomic_files import PRIVATE, replacing
from models.errors import SettingsError

SOCKET_PATH_BYTES = 100
"""Linux allows 107 bytes, macOS 103."""
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/-]*")
"""Needs no quoting in a URL; a comma would mean several hosts to Postgres."""


FolderId = tuple[int, int]
"""Device and inode: a folder that was deleted and made anew has another one."""


class FolderError(SettingsError):
    """A folder cannot be used."""


def make_data_dir(path: Path) -> Path:
    """The data folder, absolute; made when it is missing. As root others may pass through it, not look into it."""
    data_dir = path.expanduser().resolve()
    if not data_dir.is_dir():
        data_dir.mkdir(parents=True, mode=0o755)
        data_dir.chmod(0o700 if os.geteuid() else 0o711)
    return data_dir


def make_private(folder: Path, *, account: Account | None = None) -> Path:
    """A folder that only its owner (this user, or the account) can enter. Raises FolderError if it is another's."""
    try:
        folder.mkdir(mode=0o700)
        if account:
            os.chown(folder, account.uid, account.gid)
    except FileExistsError:
        found = folder.lstat()
        owner = account.uid if account else os.geteuid()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner:
            raise FolderError(f"{folder} is not a folder of user {owner}. Remove it, or set DATA_DIR.") from None
        if found.st_mode & 0o077:
            folder.chmod(0o700)
    return folder


def make_socket_folder(home: Path, socket_name: str, *, account: Account | None = None) -> Path:
    """Where a service puts its socket: its own folder, or a private one in the temp folder if that path is unfit."""
    if _fits(home / socket_name):
        return home
    name = f"session-relay-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}"
    temp = next(temp for temp in (Path(tempfile.gettempdir()), Path("/tmp")) if _fits(temp / name / socket_name))  # noqa: S108
    return make_private(temp / name, account=account)


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= SOCKET_PATH_BYTES and bool(_PLAIN_PATH.fullmatch(str(path)))


class Lock:
    """A folder's use by one process at a time. The kernel lets go of it however the holder ends."""

    def __init__(self, path: Path, *, subject: str) -> None:
        """Take it. Raises FolderError with the pid of the holder when another has it."""
        self._file = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise FolderError(
                f"{subject} is in use by another process (pid {holder}). Stop that, or set DATA_DIR and PORT."
            ) from error
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        """Let go. May be repeated."""
        self._file.close()


def find_folders(*homes: Path) -> dict[Path, FolderId]:
    """Find these folders and those right in them, each with its identity."""
    found = [*homes, *(path for home in homes for path in home.iterdir() if path.is_dir())]
    return {path: _identify(path) for path in found}


def missing_folder(folders: Mapping[Path, FolderId]) -> Path | None:
    """Return one of these folders that is gone, or is another one now."""
    for path, identity in folders.items():
        try:
            if _identify(path) != identity:
                return path
        except FileNotFoundError:
            return path
    return None


def _identify(path: Path) -> FolderId:
    found = path.stat()
    return found.st_dev, found.st_ino


def kept_secret(path: Path, make: Callable[[], str]) -> str:
    """The secret in a file that only its owner can read; made once, when there is none."""
    try:
        if secret := path.read_text().strip():
            return secret
    except FileNotFoundError:
        pass
    write_private(path, make())
    return path.read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Replace a file at once by one that only its owner can read."""
    with replacing(path, mode=PRIVATE) as file:
        file.write(f"{text}\n".encode())
