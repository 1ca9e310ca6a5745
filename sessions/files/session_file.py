"""What is in a session's file: its document, and beside it what an export leaves out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
from msgspec import Raw

from models.field_types import DeliveryStatus
from sessions.documents.document import (
    FORMAT,
    ArtifactItem,
    ChunkItem,
    EventItem,
    JsonOrNothing,
    MemoryItem,
    SessionItem,
    TaskItem,
    write_document,
)
from sessions.documents.import_validation import Document
from sessions.files.store_folder import SESSION, TOMBSTONE, TOMBSTONE_SECONDS, BrokenFile, Folder

MOST_DELIVERIES = 2_000
"""Of a session, the latest, by which repeats are recognized: they are written anew with every change."""

Numbered = Literal["chunks", "tasks", "artifacts"]
T = TypeVar("T")


class SavedDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one delivery, for those who send it again."""

    source: str
    delivery_id: str
    hash: str
    status: DeliveryStatus
    http_status: int
    decided_at: datetime
    response: JsonOrNothing

    def __post_init__(self) -> None:
        if self.response == Raw(b"null"):
            msgspec.structs.force_setattr(self, "response", None)


class StoreMetadata(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What an export leaves out."""

    session_id: str
    positions: dict[Numbered, list[int]]
    """By which lists over all sessions are sorted: microseconds, if no two were made in one."""
    events_before: int = 0
    """Entries that the journals of deleted sessions of this id had."""
    deliveries: list[SavedDelivery] = []


class _Saved(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: str
    session: SessionItem | None
    chunks: list[ChunkItem]
    memories: list[MemoryItem]
    tasks: list[TaskItem]
    artifacts: list[ArtifactItem]
    events: list[EventItem]
    store: StoreMetadata


class _SavedState(msgspec.Struct, frozen=True):
    status: str


class _Whose(msgspec.Struct, frozen=True):
    session_id: str


class SessionOutline(msgspec.Struct, frozen=True, kw_only=True):
    """A session and how much is in it, which is read faster than all of it."""

    format: str
    store: _Whose
    session: SessionItem
    chunks: list[Raw]
    memories: list[Raw]
    tasks: list[_SavedState]
    artifacts: list[Raw]


class TaskOutline(msgspec.Struct, frozen=True, kw_only=True):
    """The tasks of a session, without what was said and found."""

    format: str
    store: _Whose
    session: SessionItem
    tasks: list[TaskItem]


class SessionFile:
    """A session with all that belongs to it, to be read and changed; or, if there is none, the deliveries of its id."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.session: SessionItem | None = None
        self.chunks: dict[str, ChunkItem] = {}
        self.memories: dict[str, MemoryItem] = {}
        self.tasks: dict[str, TaskItem] = {}
        self.artifacts: dict[str, ArtifactItem] = {}
        self.events: list[EventItem] = []
        self.positions: dict[Numbered, dict[str, int]] = {"chunks": {}, "tasks": {}, "artifacts": {}}
        self.events_before = 0
        self.deliveries: dict[tuple[str, str], SavedDelivery] = {}

    def copy(self) -> SessionFile:
        """To go back to when what follows is refused."""
        twin = SessionFile(self.session_id)
        twin.session, twin.events_before = self.session, self.events_before
        twin.chunks, twin.memories, twin.tasks = dict(self.chunks), dict(self.memories), dict(self.tasks)
        twin.artifacts, twin.events, twin.deliveries = dict(self.artifacts), list(self.events), dict(self.deliveries)
        twin.positions = {name: dict(numbers) for name, numbers in self.positions.items()}
        return twin

    def number(self, name: Numbered, key: str) -> None:
        """Give a new item its position, after all others."""
        positions = self.positions[name]
        if key not in positions:
            positions[key] = next_position(next(reversed(positions.values()), 0))

    def transcript(self) -> list[ChunkItem]:
        """The conversation in the order in which it was said; what was said at one moment as it was stored."""
        return sorted(self.chunks.values(), key=lambda chunk: chunk.said_at)

    def emptied(self) -> SessionFile:
        """What is kept when the session is deleted: of its deliveries nothing that tells of it."""
        rest = SessionFile(self.session_id)
        rest.events_before = self.events_before + len(self.events)
        rest.deliveries = {key: msgspec.structs.replace(known, response=None) for key, known in self.deliveries.items()}
        return rest

    def pieces(self, *, whole: bool) -> Iterator[bytes]:
        """The document; with `whole` also what an export leaves out."""
        memories = sorted(self.memories.values(), key=lambda memory: (memory.created_at, memory.key))
        lists = (self.chunks.values(), memories, self.tasks.values(), self.artifacts.values(), self.events)
        return write_document(self.session, lists, more=self._kept() if whole else b"")

    def _kept(self) -> bytes:
        since = datetime.now(UTC) - timedelta(seconds=TOMBSTONE_SECONDS)
        deliveries = [known for known in self.deliveries.values() if known.decided_at > since][-MOST_DELIVERIES:]
        positions = {name: list(numbers.values()) for name, numbers in self.positions.items()}
        return encode_metadata(
            StoreMetadata(
                session_id=self.session_id,
                positions=positions,
                events_before=self.events_before,
                deliveries=deliveries,
            )
        )


def load_session_file(folder: Folder, session_id: str) -> SessionFile:
    """What is there of the session, which may be nothing. Raises BrokenFile."""
    for kind in (SESSION, TOMBSTONE):
        path = folder.path(session_id, kind)
        if (body := folder.read(path)) is not None:
            return parse_session_file(folder, path, body)
    return SessionFile(session_id)


def save_session_file(folder: Folder, contents: SessionFile) -> None:
    """Write it, under the session's lock."""
    kinds = (SESSION, TOMBSTONE) if contents.session else (TOMBSTONE, SESSION)
    kept, other = (folder.path(contents.session_id, kind) for kind in kinds)
    folder.write(kept, contents.pieces(whole=True))
    folder.remove(other)


def take_over(folder: Folder, document: Document, before: SessionFile) -> None:
    """Write a session that came as a document, under its lock; `before` is what there is of its id."""
    first = next_position(0)
    numbered: tuple[Numbered, ...] = ("chunks", "tasks", "artifacts")
    kept = StoreMetadata(
        session_id=before.session_id,
        positions={name: list(range(first, first + document.count(name))) for name in numbered},
        events_before=before.events_before,
        deliveries=list(before.deliveries.values()),
    )
    folder.write(folder.path(before.session_id, SESSION), document.pieces(more=encode_metadata(kept)))
    folder.remove(folder.path(before.session_id, TOMBSTONE))


def next_position(last: int) -> int:
    """A position after the last one."""
    return max(last + 1, time.time_ns() // 1_000)


def encode_metadata(kept: StoreMetadata) -> bytes:
    """As a further field of the document."""
    return b',\n"store":%s' % msgspec.json.encode(kept)


def parse_session_file(folder: Folder, path: Path, body: bytes) -> SessionFile:
    """The contents of a file. Raises BrokenFile."""
    saved = _decode(path, body, _Saved)
    kept = saved.store
    _require_own(folder, path, saved)
    found = SessionFile(kept.session_id)
    found.session = saved.session
    found.chunks = {chunk.chunk_id: chunk for chunk in saved.chunks}
    found.memories = {memory.key: memory for memory in saved.memories}
    found.tasks = {task.task_id: task for task in saved.tasks}
    found.artifacts = {artifact.artifact_id: artifact for artifact in saved.artifacts}
    found.events, found.events_before = saved.events, kept.events_before
    found.deliveries = {(known.source, known.delivery_id): known for known in kept.deliveries}
    ids: dict[Numbered, dict[str, object]] = {
        "chunks": {**found.chunks},
        "tasks": {**found.tasks},
        "artifacts": {**found.artifacts},
    }
    if {name: len(known) for name, known in ids.items()} != {name: len(kept.positions.get(name, ())) for name in ids}:
        raise BrokenFile(path, "its positions do not fit to what is in it")
    found.positions = {name: dict(zip(known, kept.positions[name], strict=True)) for name, known in ids.items()}
    return found


def parse_outline(folder: Folder, path: Path, body: bytes) -> SessionOutline:
    """The outline of a session's file. Raises BrokenFile."""
    outline = _decode(path, body, SessionOutline)
    _require_own(folder, path, outline)
    return outline


def parse_tasks(folder: Folder, path: Path, body: bytes) -> TaskOutline:
    """The tasks in a session's file. Raises BrokenFile."""
    outline = _decode(path, body, TaskOutline)
    _require_own(folder, path, outline)
    return outline


def _require_own(folder: Folder, path: Path, saved: _Saved | SessionOutline | TaskOutline) -> None:
    """Whoever copies a file makes no second session of it."""
    session_id = saved.store.session_id
    if saved.format != FORMAT:
        raise BrokenFile(path, f"it has the format {saved.format[:64]!r}, not {FORMAT!r}")
    if path.stem != folder.path(session_id, "").name or (saved.session and saved.session.session_id != session_id):
        raise BrokenFile(path, f"it is that of session {session_id[:128]!r}")


def _decode(path: Path, body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        why = str(error).removesuffix(".") or type(error).__name__
        raise BrokenFile(path, why[:1].lower() + why[1:]) from error
