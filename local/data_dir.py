"""Manages folders under DATA_DIR: private folders, locks, socket folders with short paths, and stored secrets.

The services and the stack own the contents.
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
"""The maximum length of a socket's path. Linux allows 107 bytes, macOS 103."""
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/-]*")
"""A path that needs no quoting in a URL. Postgres would read a comma as a list of hosts."""


FolderId = tuple[int, int]
"""The device and inode of a folder, which differ after it is deleted and recreated."""


class FolderError(SettingsError):
    """A folder cannot be used."""


def make_data_dir(path: Path) -> Path:
    """Create the data folder if it is missing. Returns its absolute path. If created by root, other users may traverse
    it, but not list it."""
    data_dir = path.expanduser().resolve()
    if not data_dir.is_dir():
        data_dir.mkdir(parents=True, mode=0o755)
        data_dir.chmod(0o700 if os.geteuid() else 0o711)
    return data_dir


def make_private(folder: Path, *, account: Account | None = None) -> Path:
    """Create a folder that only its owner can enter: this user, or the account. Raises FolderError if another user owns
    it."""
    try:
        folder.mkdir(mode=0o700)
        if account:
            os.chown(folder, account.uid, account.gid)
    except FileExistsError:
        found = folder.lstat()
        owner = account.uid if account else os.geteuid()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner:
            raise FolderError(
                f"{folder} is not a folder owned by user {owner}. Remove it, or set another DATA_DIR."
            ) from None
        if found.st_mode & 0o077:
            folder.chmod(0o700)
    return folder


def make_socket_folder(home: Path, socket_name: str, *, account: Account | None = None) -> Path:
    """Choose the folder for a service's socket: its own, or a private one in the temp folder if that path is too long
    or would need quoting."""
    if _fits(home / socket_name):
        return home
    name = f"session-relay-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}"
    temp = next(temp for temp in (Path(tempfile.gettempdir()), Path("/tmp")) if _fits(temp / name / socket_name))  # noqa: S108
    return make_private(temp / name, account=account)


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= SOCKET_PATH_BYTES and bool(_PLAIN_PATH.fullmatch(str(path)))


class Lock:
    """An exclusive lock on a folder. The kernel releases it however the holder ends."""

    def __init__(self, path: Path, *, subject: str) -> None:
        """Acquire the lock. Raises FolderError with the holder's pid if another process holds it."""
        self._file = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise FolderError(
                f"{subject} is in use by another process (pid {holder}). Stop it, or set another DATA_DIR and PORT."
            ) from error
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        """Release the lock. Safe to repeat."""
        self._file.close()


def find_folders(*homes: Path) -> dict[Path, FolderId]:
    """Identify these folders and their direct subfolders."""
    found = [*homes, *(path for home in homes for path in home.iterdir() if path.is_dir())]
    return {path: _identify(path) for path in found}


def missing_folder(folders: Mapping[Path, FolderId]) -> Path | None:
    """Return a folder that was deleted or replaced since, or None."""
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
    """Read the secret in a file that only its owner can read. Creates it if the file is missing or empty."""
    try:
        if secret := path.read_text().strip():
            return secret
    except FileNotFoundError:
        pass
    write_private(path, make())
    return path.read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically by one that only its owner can read."""
    with replacing(path, mode=PRIVATE) as file:
        file.write(f"{text}\n".encode())
