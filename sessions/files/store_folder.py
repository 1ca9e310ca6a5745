"""The folder of the JSON store: file names and modes, locks between processes, and atomic writes.

`session_file` defines the contents. Files are never modified, only replaced by renaming a new one. So reads take no
lock, and a killed process leaves at most an unused temporary file.
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
from sessions.embeddings.vector_cache import VectorCache

FOLDER = "json-store"
"""The store's folder in DATA_DIR, next to those of the local stack."""
SESSION, TOMBSTONE, DRAFT = ".json", ".gone", ".tmp"
"""Suffixes: a session; the deliveries of a deleted or missing one; a file that is being written."""
LOCK_SECONDS = 5.0
"""Time to wait for another writer, which takes milliseconds for all but the largest sessions."""
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.001, 0.02
"""Intervals between attempts to lock, growing from the first to the last."""
TOMBSTONE_SECONDS = 30 * 86_400
"""Time in which repeats of deliveries to a deleted session are recognized: the same as in Postgres by default."""

_DISPOSABLE = re.compile(rf"[0-9a-f]{{64}}({DRAFT}|{TOMBSTONE})".replace(".", r"\."))


class BrokenFile(RelayError):
    """A file in the JSON store is invalid."""

    code = "broken_file"

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} is not a valid session file: {why}.", hint="Restore it from a backup, or move it away."
        )


class Folder:
    """The store's files in a DATA_DIR. Creates nothing until the first write."""

    def __init__(self, data_dir: Path, vectors: VectorCache | None = None) -> None:
        self.vectors = vectors
        """For searches that compare meanings."""
        self._data_dir = data_dir.expanduser().absolute()
        self._home = self._data_dir / FOLDER
        self._files = self._home / "sessions"
        self._locks = self._home / "locks"
        self._is_tidy = False

    def path(self, session_id: str, kind: str) -> Path:
        """Return the path of a session's file. It contains a hash, never the id itself."""
        return self._files / (hashlib.sha256(session_id.encode()).hexdigest() + kind)

    def sessions(self) -> Iterator[Path]:
        """Yield the files of all sessions, unordered."""
        try:
            names = os.listdir(self._files)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unusable(self._files, error) from error
        for name in names:
            if name.endswith(SESSION):
                yield self._files / name

    def is_written_since(self, path: Path, moment: datetime) -> bool:
        """Return whether the file exists and was written after that time."""
        try:
            written_at: float = os.lstat(path).st_mtime
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _unusable(path, error) from error
        return written_at > moment.timestamp()

    def read(self, path: Path) -> bytes | None:
        """Return the contents of a file, None if it does not exist. Raises BrokenFile unless it is a regular file."""
        try:
            # Do not follow links, and do not block on pipes.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            if path.is_symlink():
                raise BrokenFile(path, "it is a symbolic link") from error
            raise _unusable(path, error) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise BrokenFile(path, "it is not a regular file")
        with os.fdopen(descriptor, "rb") as file:
            return file.read()

    @contextmanager
    def lock(self, session_id: str) -> Iterator[None]:
        """Lock a session for writing, across processes. The kernel releases the lock when the process ends. Raises
        Unavailable if other processes hold it for too long."""
        self._prepare()
        # 256 locks shared by all sessions. They are never deleted, since that cannot be done safely.
        lock = self._locks / f"{self.path(session_id, SESSION).name[:2]}.lock"
        with _open_lock(lock) as descriptor:
            ends_at = time.monotonic() + LOCK_SECONDS
            pause = FIRST_RETRY_SECONDS
            while not _try_lock(descriptor):
                if time.monotonic() > ends_at:
                    raise Unavailable("Another process is changing this session; retry in a few seconds.")
                time.sleep(pause)
                pause = min(2 * pause, LAST_RETRY_SECONDS)
            yield

    def write(self, path: Path, pieces: Iterable[bytes]) -> None:
        """Replace a file atomically and durably. The caller holds its session's lock. Raises Unavailable without having
        changed anything."""
        try:
            with replacing(path, mode=PRIVATE, draft=path.with_suffix(DRAFT)) as file:
                file.writelines(pieces)
        except OSError as error:
            raise _unusable(Path(str(error.filename or path)), error) from error

    def remove(self, path: Path) -> None:
        """Remove a file durably, if it exists. The caller holds its session's lock."""
        try:
            path.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unusable(path, error) from error
        sync_folder(self._files)

    def _prepare(self) -> None:
        """Create the folders, and once per process delete files left behind by killed processes."""
        if self._is_tidy:
            return
        try:
            if not self._data_dir.is_dir():
                self._data_dir.mkdir(parents=True)
                # Started by root, the local stack's servers run as other users.
                self._data_dir.chmod(0o700 if os.geteuid() else 0o711)
                sync_folder(self._data_dir.parent)
            for folder in (self._home, self._files, self._locks):
                _make_private(folder)
        except OSError as error:
            raise _unusable(Path(str(error.filename or self._home)), error) from error
        self._tidy()
        self._is_tidy = True

    def _tidy(self) -> None:
        for name in os.listdir(self._files):
            path = self._files / name
            if not _DISPOSABLE.fullmatch(name):
                continue
            with suppress(OSError, Unavailable), _open_lock(self._locks / f"{name[:2]}.lock") as descriptor:
                # A file whose lock is held is being written.
                if _try_lock(descriptor) and (path.suffix == DRAFT or _age_seconds(path) > TOMBSTONE_SECONDS):
                    path.unlink()


@contextmanager
def _open_lock(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(path, error) from error
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


def _unusable(path: Path, error: OSError) -> Unavailable:
    return Unavailable(f"{path} cannot be used: {(error.strerror or type(error).__name__).lower()}.", code="no_access")
