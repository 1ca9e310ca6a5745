"""Backs up the complete JSON store to one archive and restores it, atomically.

The store's files are never modified, only replaced. Hard links made while writers are locked out are therefore a
snapshot that lasts while the archive is written.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gzip
import os
import re
import shutil
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from models.atomic_files import PRIVATE, sync_folder
from models.errors import RelayError, Unavailable
from sessions.documents.store_summary import StoreSummary
from sessions.files.session_file import parse_session_file
from sessions.files.store_folder import SESSION, TOMBSTONE, BrokenFile, Folder

LOCKS = 256
LOCK_SECONDS = 20.0
"""Time to wait for writers, one of which may import a large session."""
POLL_SECONDS = 0.01
PART_BYTES = 65_536
MEMBER = re.compile(rf"sessions/([0-9a-f]{{64}}({SESSION}|{TOMBSTONE}))".replace(".", r"\."))
TEMPORARY = ".passing-"
"""The prefix of temporary folders, which only the process that created them uses."""
_AT_FDCWD, _EXCHANGE, _SWAP = -100, 2, 2

Advance = Callable[[], None]


class BrokenArchive(RelayError):
    """The file is not an archive of a JSON store."""

    code = "broken_archive"


class Archive(Folder):
    """The complete store in a DATA_DIR."""

    @property
    def place(self) -> Path:
        """The path of the store."""
        return self._home

    def held(self) -> StoreSummary:
        """Summarize the store. Invalid files count as sessions without further data."""
        held = StoreSummary()
        for path in self.sessions():
            with suppress(BrokenFile):
                held = self._with(held, path, self.read(path) or b"")
                continue
            held = held.with_session(None)
        return held

    def count(self) -> int:
        """Return the number of files that an archive will have."""
        return len(self._names())

    def save(self, stream: IO[bytes], *, advance: Advance) -> None:
        """Write a snapshot of the store as tar.gz. Raises Unavailable if other processes write for too long."""
        with ExitStack() as ends:
            with self._everything():
                snapshot = ends.enter_context(self._temporary_folder())
                for name in self._names():
                    os.link(self._files / name, snapshot / name, follow_symlinks=False)
            with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=6) as archive:
                for name in sorted(os.listdir(snapshot)):
                    archive.add(snapshot / name, f"sessions/{name}", recursive=False)
                    advance()

    def check(self, path: Path) -> tuple[StoreSummary, int]:
        """Read a complete archive; returns its summary and number of files. Raises BrokenArchive, or BrokenFile for an
        invalid file in it."""
        held, files = StoreSummary(), 0
        for name, body in _members(path):
            held = self._with(held, self._files / name, body)
            files += 1
        return held, files

    def replace(self, path: Path, *, advance: Advance) -> None:
        """Replace all sessions with those of an archive. Writes them to disk first, then exchanges the two folders in
        one step. Raises BrokenArchive or Unavailable without having changed the store."""
        self._prepare()
        with self._temporary_folder() as folder:
            for name, body in _members(path):
                parse_session_file(self, self._files / name, body)
                with open(folder / name, "wb", opener=_private) as file:
                    file.write(body)
                    file.flush()
                    os.fsync(file.fileno())
                advance()
            sync_folder(folder)
            with self._everything():
                _exchange(self._files, folder)
                sync_folder(self._home)

    def _with(self, held: StoreSummary, path: Path, body: bytes) -> StoreSummary:
        session = parse_session_file(self, path, body).session
        return held.with_session(session.last_activity_at) if session else held

    def _names(self) -> list[str]:
        try:
            return [name for name in os.listdir(self._files) if MEMBER.fullmatch(f"sessions/{name}")]
        except FileNotFoundError:
            return []

    @contextmanager
    def _temporary_folder(self) -> Iterator[Path]:
        """Create a folder next to that of the sessions. Also removes those that killed processes left behind."""
        for orphan in self._home.glob(f"{TEMPORARY}*"):
            with _flock(orphan) as is_ours:
                if is_ours:
                    shutil.rmtree(orphan, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=self._home, prefix=TEMPORARY))
        with _flock(folder):
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _everything(self) -> Iterator[None]:
        """Lock out all other writers, in all processes."""
        self._prepare()
        limit_at = time.monotonic() + LOCK_SECONDS
        with ExitStack() as held:
            for number in range(LOCKS):
                lock = self._locks / f"{number:02x}.lock"
                while not held.enter_context(_flock(lock, os.O_RDWR | os.O_CREAT)):
                    if time.monotonic() > limit_at:
                        raise Unavailable("Other processes are changing sessions; retry in a few seconds.")
                    time.sleep(POLL_SECONDS)
            yield


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of an archive. Raises BrokenArchive for other or repeated members."""
    seen: set[str] = set()
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                name = MEMBER.fullmatch(member.name)
                file = archive.extractfile(member) if name and member.isfile() else None
                if name is None or file is None or name[1] in seen:
                    raise BrokenArchive(f"{path} is not an archive of a JSON store: it contains {member.name[:200]!r}.")
                seen.add(name[1])
                yield name[1], file.read()
            while stream.read(PART_BYTES):
                pass  # The checksum is at the end.
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.EACCES, errno.EISDIR):
            raise
        raise BrokenArchive(f"{path} is not an archive of a JSON store, or is damaged.", hint=str(error)) from error


@contextmanager
def _flock(path: Path, flags: int = os.O_RDONLY) -> Iterator[bool]:
    """Try to lock a file or folder; yields whether it succeeded."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        yield False
        return
    try:
        yield True
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> None:
    """Exchange two folders in one step. Raises Unavailable where the system does not support it."""
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if hasattr(library, "renameat2"):
        failed = library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE)
    elif hasattr(library, "renamex_np"):
        failed = library.renamex_np(*names, _SWAP)
    else:
        failed = -1
    if failed:
        reason = os.strerror(ctypes.get_errno() or errno.ENOSYS)
        raise Unavailable(f"{one} cannot be replaced in one step on this file system: {reason}.", code="no_exchange")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_EXCL, PRIVATE)
