"""The whole JSON store as one file, and back: of one moment, and never half.

Files of the store are never changed, only replaced: so links to them, made while nobody may write, keep that moment for
as long as the archive takes.
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
"""To wait for those who write, one of whom may import something large."""
LOOK_SECONDS = 0.01
PART_BYTES = 65_536
MEMBER = re.compile(rf"sessions/([0-9a-f]{{64}}({SESSION}|{TOMBSTONE}))".replace(".", r"\."))
PASSING = ".passing-"
"""How the names of folders begin that are of no use to anybody but the process that made them."""
_AT_FDCWD, _EXCHANGE, _SWAP = -100, 2, 2

Advance = Callable[[], None]


class BrokenArchive(RelayError):
    """The file is no archive of a JSON store."""

    code = "broken_archive"


class Archive(Folder):
    """The store below one DATA_DIR as a whole."""

    @property
    def place(self) -> Path:
        """Where it is."""
        return self._home

    def held(self) -> StoreSummary:
        """What is in the store. Files that are no session's count as one, and tell nothing."""
        held = StoreSummary()
        for path in self.sessions():
            with suppress(BrokenFile):
                held = self._with(held, path, self.read(path) or b"")
                continue
            held = held.with_session(None)
        return held

    def count(self) -> int:
        """How many files an archive will have."""
        return len(self._names())

    def save(self, stream: IO[bytes], *, advance: Advance) -> None:
        """Write all that there is at one moment, as tar.gz. Raises Unavailable if others write for too long."""
        with ExitStack() as ends:
            with self._everything():
                moment = ends.enter_context(self._passing_folder())
                for name in self._names():
                    os.link(self._files / name, moment / name, follow_symlinks=False)
            with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=6) as archive:
                for name in sorted(os.listdir(moment)):
                    archive.add(moment / name, f"sessions/{name}", recursive=False)
                    advance()

    def check(self, path: Path) -> tuple[StoreSummary, int]:
        """Read an archive to its end: what is in it, and in how many files. Raises BrokenArchive, or BrokenFile for one
        in it that is no session's."""
        held, files = StoreSummary(), 0
        for name, body in _members(path):
            held = self._with(held, self._files / name, body)
            files += 1
        return held, files

    def replace(self, path: Path, *, advance: Advance) -> None:
        """Put the sessions of an archive in the place of all that there are. These stay until all of those are on the
        disk; then the two change places at once. Raises BrokenArchive or Unavailable, and then nothing was done."""
        self._prepare()
        with self._passing_folder() as folder:
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
    def _passing_folder(self) -> Iterator[Path]:
        """A folder beside the sessions'. What killed processes have left of their own is removed on the occasion."""
        for left in self._home.glob(f"{PASSING}*"):
            with _flock(left) as is_ours:
                if is_ours:
                    shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=self._home, prefix=PASSING))
        with _flock(folder):
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _everything(self) -> Iterator[None]:
        """Be the only one who writes anything, in all processes."""
        self._prepare()
        limit_at = time.monotonic() + LOCK_SECONDS
        with ExitStack() as held:
            for number in range(LOCKS):
                lock = self._locks / f"{number:02x}.lock"
                while not held.enter_context(_flock(lock, os.O_RDWR | os.O_CREAT)):
                    if time.monotonic() > limit_at:
                        raise Unavailable("Others are changing sessions at the moment; try again in some seconds.")
                    time.sleep(LOOK_SECONDS)
            yield


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The files of an archive, which nothing but sessions' files can be, each once."""
    seen: set[str] = set()
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                name = MEMBER.fullmatch(member.name)
                file = archive.extractfile(member) if name and member.isfile() else None
                if name is None or file is None or name[1] in seen:
                    raise BrokenArchive(
                        f"{path} is no archive of a JSON store: {member.name[:200]!r} does not belong there."
                    )
                seen.add(name[1])
                yield name[1], file.read()
            while stream.read(PART_BYTES):
                pass  # Its check sum stands at its end.
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.EACCES, errno.EISDIR):
            raise
        raise BrokenArchive(f"{path} is no archive of a JSON store, or a damaged one.", hint=str(error)) from error


@contextmanager
def _flock(path: Path, flags: int = os.O_RDONLY) -> Iterator[bool]:
    """Hold a lock on a file or folder, if nobody else does."""
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
    """Let two folders change places in one step. Raises Unavailable where the system cannot do that."""
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
