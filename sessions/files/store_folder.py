"""The folder of the JSON store: its files' names and modes, locks between processes, and writing that is whole or not
at all. What is in a file is `sessions.files.session_file`'s.

A file is never changed: a new one takes its place by renaming, so whoever reads needs no lock, and a process that is
killed leaves at most a temporary file that nobody reads.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from models.atomic_files import PRIVATE, replacing, sync_folder
from models.errors import RelayError, Unavailable

FOLDER = "json-store"
"""Under DATA_DIR, where the local stack has its own folders."""
SESSION, TOMBSTONE, DRAFT = ".json", ".gone", ".tmp"
"""Kinds of files: a session; what is kept of one that was deleted or never was; one that is being written."""
LOCK_SECONDS = 5.0
"""To wait for somebody else who writes, which takes milliseconds but for the largest sessions."""
FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 0.001, 0.02
"""Between two attempts to get a lock."""
TOMBSTONE_SECONDS = 30 * 86_400
"""For which repeats of deliveries to a deleted session are recognized, as long as in Postgres by default."""

_PASSING = re.compile(rf"[0-9a-f]{{64}}({DRAFT}|{TOMBSTONE})".replace(".", r"\."))


class BrokenFile(RelayError):
    """A file in the folder of the JSON store is no session."""

    code = "broken_file"

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is not a session's file: {why}.", hint="Move it away, or bring back a copy of it.")


class Folder:
    """The files below one DATA_DIR. Nothing is made before something is written."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.expanduser().absolute()
        self._home = self._data_dir / FOLDER
        self._files = self._home / "sessions"
        self._locks = self._home / "locks"
        self._is_tidy = False

    def path(self, session_id: str, kind: str) -> Path:
        """Where something of a session is; no id is ever part of a path."""
        return self._files / (hashlib.sha256(session_id.encode()).hexdigest() + kind)

    def sessions(self) -> Iterator[Path]:
        """The files of all sessions, in no order."""
        try:
            names = os.listdir(self._files)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _trouble(self._files, error) from error
        for name in names:
            if name.endswith(SESSION):
                yield self._files / name

    def is_written_since(self, path: Path, moment: datetime) -> bool:
        """Whether the file is there, and was written after that moment."""
        try:
            written_at: float = os.lstat(path).st_mtime
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _trouble(path, error) from error
        return written_at > moment.timestamp()

    def read(self, path: Path) -> bytes | None:
        """The whole file, None if there is none. Raises BrokenFile for what is no plain file."""
        try:
            # Neither led elsewhere by a link, nor kept waiting by a pipe.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            if path.is_symlink():
                raise BrokenFile(path, "it is a symbolic link") from error
            raise _trouble(path, error) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise BrokenFile(path, "it is no plain file")
        with os.fdopen(descriptor, "rb") as file:
            return file.read()

    @contextmanager
    def lock(self, session_id: str) -> Iterator[None]:
        """Be the only one who writes the session, in all processes. The kernel lets go of it however this one ends.
        Raises Unavailable when others keep it for too long."""
        self._prepare()
        # 256 locks for all sessions: none is ever deleted, which could not be done safely.
        lock = self._locks / f"{self.path(session_id, SESSION).name[:2]}.lock"
        with _open_lock(lock) as descriptor:
            ends_at = time.monotonic() + LOCK_SECONDS
            pause = FIRST_LOOK_SECONDS
            while not _try_lock(descriptor):
                if time.monotonic() > ends_at:
                    raise Unavailable("Others are changing this session at the moment; try again in some seconds.")
                time.sleep(pause)
                pause = min(2 * pause, LAST_LOOK_SECONDS)
            yield

    def write(self, path: Path, pieces: Iterable[bytes]) -> None:
        """Put a file in place of the one that is there, under its session's lock. It lasts when this returns; if it
        raises Unavailable, nothing has changed."""
        try:
            with replacing(path, mode=PRIVATE, draft=path.with_suffix(DRAFT)) as file:
                file.writelines(pieces)
        except OSError as error:
            raise _trouble(Path(str(error.filename or path)), error) from error

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there, under its session's lock, for good."""
        try:
            path.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise _trouble(path, error) from error
        sync_folder(self._files)

    def _prepare(self) -> None:
        """Make the folders, and once clean up what killed processes have left."""
        if self._is_tidy:
            return
        try:
            if not self._data_dir.is_dir():
                self._data_dir.mkdir(parents=True)
                # The local stack's servers have users of their own when it is started by root.
                self._data_dir.chmod(0o700 if os.geteuid() else 0o711)
                sync_folder(self._data_dir.parent)
            for folder in (self._home, self._files, self._locks):
                _make_private(folder)
        except OSError as error:
            raise _trouble(Path(str(error.filename or self._home)), error) from error
        self._tidy()
        self._is_tidy = True

    def _tidy(self) -> None:
        for name in os.listdir(self._files):
            path = self._files / name
            if not _PASSING.fullmatch(name):
                continue
            with suppress(OSError, Unavailable), _open_lock(self._locks / f"{name[:2]}.lock") as descriptor:
                # One whose lock is held is being written.
                if _try_lock(descriptor) and (path.suffix == DRAFT or _age_seconds(path) > TOMBSTONE_SECONDS):
                    path.unlink()


@contextmanager
def _open_lock(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _trouble(path, error) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
        sync_folder(folder.parent)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise Unavailable(f"{folder} is not a folder of user {os.geteuid()}.", code="not_ours") from None
        if found.st_mode & 0o077:
            folder.chmod(0o700)


def _age_seconds(path: Path) -> float:
    return time.time() - path.lstat().st_mtime


def _trouble(path: Path, error: OSError) -> Unavailable:
    return Unavailable(f"{path} cannot be used: {(error.strerror or type(error).__name__).lower()}.", code="no_access")
