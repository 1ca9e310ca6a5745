"""A whole session as one JSON document: its content, and writing it.

It omits data that follow from the rest (search texts, counts, a store's sort numbers) and data that grant rights (claim
tokens). Reading a document from elsewhere is left to `sessions.documents.import_validation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from models import field_types as v
from models.commands.definitions import TaskTitle
from models.due import due_in
from sessions.rules.event_log import Event, EventStatus
from sessions.rules.records import (
    Artifact,
    ArtifactRevision,
    Chunk,
    Memory,
    MemoryRevision,
    Record,
    Session,
    Task,
    readable_length,
)
from sessions.rules.tasks import description_hash

FORMAT = "session-relay/1"
"""Changes when a reader of the previous format could not read it."""
PIECE_BYTES = 65_536
"""Bytes written at a time: a session may have many small items."""

Moment = Annotated[datetime, Meta(tz=True)]
Word = Annotated[str, Meta(min_length=1, max_length=64)]
if TYPE_CHECKING:
    JsonOrNothing = Raw | None
    DueOrNothing = str | None
else:
    JsonOrNothing = Raw  # As a union, msgspec would accept nothing but null.
    DueOrNothing = v.Due | None | UnsetType  # Unset only while older documents are decoded.
R = TypeVar("R", bound=Record)


class Item(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An item of a session."""


class SessionItem(Item, frozen=True, kw_only=True):
    """The session itself."""

    session_id: v.Id
    title: v.Name
    participants: v.Names
    context: str
    status: v.SessionStatus
    created_by: v.Name
    created_at: Moment
    last_activity_at: Moment
    completed_at: Moment | None


class ChunkItem(Item, frozen=True, kw_only=True):
    """A chunk of the conversation."""

    chunk_id: v.Id
    content: Annotated[str, Meta(min_length=1)]
    format: v.ChunkFormat
    start_at: Moment | None
    end_at: Moment | None
    participants: v.Names
    extracted_items: Raw
    metadata: Raw
    created_by: v.Name
    created_at: Moment

    @property
    def said_at(self) -> datetime:
        """The time at which it began, if its sender has given one, else the time at which it was sent."""
        return self.start_at or self.created_at


class RevisionItem(Item, frozen=True, kw_only=True):
    """A memory at an earlier revision."""

    key: v.Name
    revision: v.Revision
    type: v.MemoryType
    content: Raw
    tags: v.Names
    status: v.MemoryStatus
    chunk_id: v.Id | None
    created_by: v.Name
    created_at: Moment
    updated_at: Moment
    due: DueOrNothing = UNSET  # type: ignore[assignment]
    """Missing in older documents, where the content may have it."""

    def __post_init__(self) -> None:
        if self.due is UNSET:  # type: ignore[comparison-overlap]
            msgspec.structs.force_setattr(self, "due", due_in(self.content))


class MemoryItem(RevisionItem, frozen=True, kw_only=True):
    """A memory at its latest revision, with the earlier ones, oldest first."""

    revisions: list[RevisionItem]


class TaskItem(Item, frozen=True, kw_only=True):
    """A delegated task. Its holder can continue only with the claim token, which is not here."""

    task_id: v.Id
    agent_name: v.Id | None
    task_type: v.Label
    title: TaskTitle | None = None
    """Missing in older documents."""
    description: Annotated[str, Meta(min_length=1, max_length=100_000, pattern=r"\S")]
    priority: v.Priority
    input_data: Raw
    depends_on: Annotated[list[v.Id], Meta(max_length=100)]
    not_before: Moment | None
    max_attempts: v.Attempts
    attempt: Annotated[int, Meta(ge=0, le=2_147_483_647)]
    status: v.TaskStatus
    output: JsonOrNothing
    error: str | None
    progress: JsonOrNothing
    questions: Raw
    cancel_reason: str | None
    claimed_by: v.Name | None
    claimed_at: Moment | None
    lease_expires_at: Moment | None
    created_by: v.Name
    created_at: Moment
    updated_at: Moment
    finished_at: Moment | None
    shown_at: Moment | None
    seen_by: Annotated[list[v.Name], Meta(max_length=32)] = []
    """Missing in older documents."""

    @property
    def titled(self) -> str:
        """The title, or else the text to make one from."""
        return self.title or self.description

    def __post_init__(self) -> None:
        for name in ("output", "progress"):
            if getattr(self, name) == Raw(b"null"):
                msgspec.structs.force_setattr(self, name, None)


class ArtifactItem(Item, frozen=True, kw_only=True):
    """A finished piece of work at its latest revision."""

    artifact_id: v.Id
    name: v.Name
    type: v.Label
    format: v.Label | None
    content: Raw
    metadata: Raw
    task_id: v.Id | None
    created_by: v.Name
    created_at: Moment
    revision: v.Revision = 1
    """Missing in older documents."""
    revised_at: Moment | None = None
    """Missing in older documents."""

    @property
    def updated_at(self) -> datetime:
        """The time of this revision."""
        return self.revised_at or self.created_at


class ArtifactRevisionItem(ArtifactItem, frozen=True, kw_only=True):
    """An artifact at an earlier revision. In a list of their own, since all revisions together can be large."""


class EventItem(Item, frozen=True, kw_only=True):
    """A journal entry."""

    event: Word
    status: EventStatus
    delivery_id: v.DeliveryId | None
    source: v.Name
    message: str
    data: Raw
    created_at: Moment = msgspec.field(name="at")


LISTS: dict[str, type[Item]] = {
    "chunks": ChunkItem,
    "memories": MemoryItem,
    "tasks": TaskItem,
    "artifacts": ArtifactItem,
    "artifact_revisions": ArtifactRevisionItem,
    "events": EventItem,
}
"""The lists of a document in their order. Items are in order of creation, memories of the same time in order of keys,
and revisions of artifacts in order of ids and numbers."""


def write_document(
    session: SessionItem | None, lists: Iterable[Iterable[Item]], *, more: bytes = b""
) -> Iterator[bytes]:
    """The document in pieces, one item per line. `lists` are those of LISTS. `more` are further fields, with their
    comma, that only the store that writes them understands."""
    piece = bytearray(b'{"format":%s,\n"session":%s' % (msgspec.json.encode(FORMAT), msgspec.json.encode(session)))
    for name, items in zip(LISTS, lists, strict=True):
        piece += b',\n"%s":[' % name.encode()
        for number, item in enumerate(items):
            piece += (b",\n" if number else b"\n") + msgspec.json.encode(item)
            if len(piece) >= PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
        piece += b"]"
    yield bytes(piece) + more + b"}\n"


def make_item(kind: type[Any], columns: Any) -> Any:
    """The item with these values by name; further values are ignored."""
    return kind(**{name: columns[name] for name in kind.__struct_fields__})


def session_record(item: SessionItem) -> Session:
    """The session as rules work on it."""
    return _record(Session, item, session_id=item.session_id)


def records(item: Item, session_id: str) -> Iterator[Record]:
    """The records that rules work on, of an item, with derived fields; for a memory also its revisions."""
    match item:
        case ChunkItem():
            yield _record(Chunk, item, session_id=session_id)
        case MemoryItem():
            yield _record(Memory, item, session_id=session_id, memory_key=item.key)
            for revision in item.revisions:
                yield _record(MemoryRevision, revision, session_id=session_id, memory_key=item.key)
        case TaskItem():
            digest = description_hash(item.agent_name, item.description)
            yield _record(Task, item, session_id=session_id, description_hash=digest, claim_token=None)
        case ArtifactRevisionItem():
            length = readable_length(item.content)
            yield _record(ArtifactRevision, item, session_id=session_id, characters=length)
        case ArtifactItem():
            length = readable_length(item.content)
            yield _record(Artifact, item, session_id=session_id, characters=length)


def event_record(item: EventItem, session_id: str) -> Event:
    """A journal entry as stores write it."""
    values = {name: getattr(item, name) for name in item.__struct_fields__}
    return Event(session_id=session_id, **values)


def _record(kind: type[R], item: Item, **known: Any) -> R:
    fields = (name for name in kind.__struct_fields__ if name not in known)
    return kind(**known, **{name: getattr(item, name) for name in fields})


def item_of(record: Record, *, revisions: Iterable[RevisionItem] = ()) -> Any:
    """A record as an item of the document; `revisions` are those of a memory."""
    if isinstance(record, MemoryRevision):
        return _item(RevisionItem, record)
    if isinstance(record, Memory):
        return _item(MemoryItem, record, revisions=list(revisions))
    return _item(_KINDS[type(record)], record)


def event_item_of(event: Event) -> EventItem:
    """A journal entry as an item of the document."""
    return EventItem(**{name: getattr(event, name) for name in EventItem.__struct_fields__})


_KINDS: dict[type[Record], type[Item]] = {
    Session: SessionItem,
    Chunk: ChunkItem,
    Task: TaskItem,
    Artifact: ArtifactItem,
    ArtifactRevision: ArtifactRevisionItem,
}


def _item(kind: type[Item], record: Record, **more: Any) -> Item:
    names = zip(record.__struct_fields__, record.__struct_encode_fields__, strict=True)
    values = {encoded: getattr(record, name) for name, encoded in names if encoded in kind.__struct_fields__}
    return kind(**values, **more)
