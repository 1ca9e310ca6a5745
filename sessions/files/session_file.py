"""The contents of a session's file: its document, plus the metadata that exports omit."""

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
    ArtifactRevisionItem,
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
"""The latest deliveries kept per session to recognize repeats; each change rewrites all of them."""

Numbered = Literal["chunks", "tasks", "artifacts"]
T = TypeVar("T")


class SavedDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a delivery, to return when it is repeated."""

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
    """The metadata that exports omit."""

    session_id: str
    positions: dict[Numbered, list[int]]
    """Sort keys for lists over all sessions: creation times in microseconds, increased to be unique within a
    session."""
    events_before: int = 0
    """The number of events of deleted sessions with this id."""
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
    artifact_revisions: list[ArtifactRevisionItem] = []
    """Missing in older files."""


class _SavedState(msgspec.Struct, frozen=True):
    status: str


class _Whose(msgspec.Struct, frozen=True):
    session_id: str


class SessionOutline(msgspec.Struct, frozen=True, kw_only=True):
    """A session with its counts, which parses faster than all its contents."""

    format: str
    store: _Whose
    session: SessionItem
    chunks: list[Raw]
    memories: list[Raw]
    tasks: list[_SavedState]
    artifacts: list[Raw]


class TaskOutline(msgspec.Struct, frozen=True, kw_only=True):
    """The tasks of a session, without its other contents."""

    format: str
    store: _Whose
    session: SessionItem
    tasks: list[TaskItem]


class SessionFile:
    """A complete session in memory, to read and change; for an id without a session, only its deliveries."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.session: SessionItem | None = None
        self.chunks: dict[str, ChunkItem] = {}
        self.memories: dict[str, MemoryItem] = {}
        self.tasks: dict[str, TaskItem] = {}
        self.artifacts: dict[str, ArtifactItem] = {}
        self.artifact_revisions: dict[tuple[str, int], ArtifactRevisionItem] = {}
        """By id and revision."""
        self.events: list[EventItem] = []
        self.positions: dict[Numbered, dict[str, int]] = {"chunks": {}, "tasks": {}, "artifacts": {}}
        self.events_before = 0
        self.deliveries: dict[tuple[str, str], SavedDelivery] = {}

    def copy(self) -> SessionFile:
        """Copy the session, to restore it if a command is rejected."""
        twin = SessionFile(self.session_id)
        twin.session, twin.events_before = self.session, self.events_before
        twin.chunks, twin.memories, twin.tasks = dict(self.chunks), dict(self.memories), dict(self.tasks)
        twin.artifacts, twin.artifact_revisions = dict(self.artifacts), dict(self.artifact_revisions)
        twin.events, twin.deliveries = list(self.events), dict(self.deliveries)
        twin.positions = {name: dict(numbers) for name, numbers in self.positions.items()}
        return twin

    def number(self, name: Numbered, key: str) -> None:
        """Assign a new item its position, after all others."""
        positions = self.positions[name]
        if key not in positions:
            positions[key] = next_position(next(reversed(positions.values()), 0))

    def renumber(self, name: Numbered, key: str) -> None:
        """Assign a changed item a new position, after all others. The caller adds it to the contents again."""
        self.positions[name].pop(key, None)
        self.number(name, key)

    def transcript(self) -> list[ChunkItem]:
        """Return the conversation in the order of time; at the same time, in the order of storage."""
        return sorted(self.chunks.values(), key=lambda chunk: chunk.said_at)

    def emptied(self) -> SessionFile:
        """Return the remains of a deleted session: its deliveries, without responses."""
        rest = SessionFile(self.session_id)
        rest.events_before = self.events_before + len(self.events)
        rest.deliveries = {key: msgspec.structs.replace(known, response=None) for key, known in self.deliveries.items()}
        return rest

    def pieces(self, *, whole: bool) -> Iterator[bytes]:
        """Return the document in pieces; with `whole`, including the metadata that exports omit."""
        memories = sorted(self.memories.values(), key=lambda memory: (memory.created_at, memory.key))
        revisions = [self.artifact_revisions[key] for key in sorted(self.artifact_revisions)]
        artifacts = self.artifacts.values()
        lists = (self.chunks.values(), memories, self.tasks.values(), artifacts, revisions, self.events)
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
    """Load a session, empty if it does not exist. Raises BrokenFile."""
    for kind in (SESSION, TOMBSTONE):
        path = folder.path(session_id, kind)
        if (body := folder.read(path)) is not None:
            return parse_session_file(folder, path, body)
    return SessionFile(session_id)


def save_session_file(folder: Folder, contents: SessionFile) -> None:
    """Write a session. The caller holds its lock."""
    kinds = (SESSION, TOMBSTONE) if contents.session else (TOMBSTONE, SESSION)
    kept, other = (folder.path(contents.session_id, kind) for kind in kinds)
    folder.write(kept, contents.pieces(whole=True))
    folder.remove(other)


def save_document(folder: Folder, document: Document, before: SessionFile) -> None:
    """Write an imported session. The caller holds its lock; `before` is the current file of its id."""
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
    """Return a position after the last one."""
    return max(last + 1, time.time_ns() // 1_000)


def encode_metadata(kept: StoreMetadata) -> bytes:
    """Encode the metadata as an additional field of the document."""
    return b',\n"store":%s' % msgspec.json.encode(kept)


def parse_session_file(folder: Folder, path: Path, body: bytes) -> SessionFile:
    """Parse a session's file. Raises BrokenFile."""
    saved = _decode(path, body, _Saved)
    kept = saved.store
    _require_own(folder, path, saved)
    found = SessionFile(kept.session_id)
    found.session = saved.session
    found.chunks = {chunk.chunk_id: chunk for chunk in saved.chunks}
    found.memories = {memory.key: memory for memory in saved.memories}
    found.tasks = {task.task_id: task for task in saved.tasks}
    found.artifacts = {artifact.artifact_id: artifact for artifact in saved.artifacts}
    found.artifact_revisions = {(item.artifact_id, item.revision): item for item in saved.artifact_revisions}
    found.events, found.events_before = saved.events, kept.events_before
    found.deliveries = {(known.source, known.delivery_id): known for known in kept.deliveries}
    ids: dict[Numbered, dict[str, object]] = {
        "chunks": {**found.chunks},
        "tasks": {**found.tasks},
        "artifacts": {**found.artifacts},
    }
    if {name: len(known) for name, known in ids.items()} != {name: len(kept.positions.get(name, ())) for name in ids}:
        raise BrokenFile(path, "its positions do not match its contents")
    found.positions = {name: dict(zip(known, kept.positions[name], strict=True)) for name, known in ids.items()}
    return found


def parse_outline(folder: Folder, path: Path, body: bytes) -> SessionOutline:
    """Parse the outline of a session's file. Raises BrokenFile."""
    outline = _decode(path, body, SessionOutline)
    _require_own(folder, path, outline)
    return outline


def parse_tasks(folder: Folder, path: Path, body: bytes) -> TaskOutline:
    """Parse the tasks in a session's file. Raises BrokenFile."""
    outline = _decode(path, body, TaskOutline)
    _require_own(folder, path, outline)
    return outline


def _require_own(folder: Folder, path: Path, saved: _Saved | SessionOutline | TaskOutline) -> None:
    """Raise BrokenFile for another format, or for a copy of another session's file."""
    session_id = saved.store.session_id
    if saved.format != FORMAT:
        raise BrokenFile(path, f"it has the format {saved.format[:64]!r}, not {FORMAT!r}")
    if path.stem != folder.path(session_id, "").name or (saved.session and saved.session.session_id != session_id):
        raise BrokenFile(path, f"it belongs to session {session_id[:128]!r}")


def _decode(path: Path, body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        why = str(error).removesuffix(".") or type(error).__name__
        raise BrokenFile(path, why[:1].lower() + why[1:]) from error
