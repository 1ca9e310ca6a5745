"""The records that rules work on, one per row. JSON from senders is kept as the text that they sent."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Raw

from models.field_types import OPEN_TYPES, ChunkFormat, MemoryStatus, MemoryType, SessionStatus, TaskStatus

Key = tuple[str, ...]
"""Table, session_id, and the id within the session."""

EMPTY_OBJECT = Raw(b"{}")
EMPTY_LIST = Raw(b"[]")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a session."""

    session_id: str

    @property
    def key(self) -> Key:
        """The key under which the record is stored."""
        raise NotImplementedError


class Session(Record, frozen=True, kw_only=True):
    """A session."""

    title: str
    participants: list[str]
    context: str
    status: SessionStatus
    created_by: str
    created_at: datetime
    last_activity_at: datetime
    completed_at: datetime | None = None

    @property
    def key(self) -> Key:
        return session_key(self.session_id)


class Chunk(Record, frozen=True, kw_only=True):
    """A chunk of the conversation."""

    chunk_id: str
    content: str
    format: ChunkFormat
    start_at: datetime | None
    end_at: datetime | None
    participants: list[str]
    extracted_items: Raw
    metadata: Raw
    created_by: str
    created_at: datetime

    @property
    def key(self) -> Key:
        return ("conversation_chunks", self.session_id, self.chunk_id)


class Memory(Record, frozen=True, kw_only=True):
    """A memory at one revision."""

    memory_key: str = msgspec.field(name="key")
    revision: int
    type: MemoryType
    content: Raw
    tags: list[str]
    status: MemoryStatus
    chunk_id: str | None
    created_by: str
    created_at: datetime
    updated_at: datetime
    due: str | None = None
    """A date, or a time in UTC, as `models.timestamps.parse_due` returns it."""

    @property
    def key(self) -> Key:
        return memory_key(self.session_id, self.memory_key)


class MemoryRevision(Memory, frozen=True, kw_only=True):
    """An earlier revision of a memory."""

    @property
    def key(self) -> Key:
        return ("memory_revisions", self.session_id, self.memory_key, str(self.revision))


class Task(Record, frozen=True, kw_only=True):
    """A delegated task."""

    task_id: str
    agent_name: str | None
    task_type: str
    title: str | None = None
    """None for tasks of versions without titles."""
    description: str
    description_hash: str
    priority: int
    input_data: Raw
    depends_on: list[str]
    not_before: datetime | None
    max_attempts: int
    created_by: str
    created_at: datetime
    updated_at: datetime
    attempt: int = 0
    status: TaskStatus = "pending"
    output: Raw | None = None
    error: str | None = None
    progress: Raw | None = None
    questions: Raw = EMPTY_LIST
    cancel_reason: str | None = None
    claimed_by: str | None = None
    claim_token: str | None = None
    claimed_at: datetime | None = None
    lease_expires_at: datetime | None = None
    finished_at: datetime | None = None
    shown_at: datetime | None = None
    seen_by: list[str] = []

    @property
    def key(self) -> Key:
        return task_key(self.session_id, self.task_id)

    @property
    def titled(self) -> str:
        """The title, or else the text to make one from."""
        return self.title or self.description


class Artifact(Record, frozen=True, kw_only=True):
    """A finished piece of work at one revision."""

    artifact_id: str
    name: str
    type: str
    format: str | None
    content: Raw
    metadata: Raw
    task_id: str | None
    created_by: str
    created_at: datetime
    revision: int = 1
    revised_at: datetime | None = None
    """The time of this revision; None for the first."""
    characters: int | None = None
    """The length of the content as it is read; None for artifacts of versions without revisions."""

    @property
    def key(self) -> Key:
        return artifact_key(self.session_id, self.artifact_id)


class ArtifactRevision(Artifact, frozen=True, kw_only=True):
    """An earlier revision of an artifact."""

    @property
    def key(self) -> Key:
        return ("artifact_revisions", self.session_id, self.artifact_id, str(self.revision))


class Question(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A question that an agent asked about its task, and the answer."""

    question: str
    asked_at: datetime
    answer: str | None = None
    answered_at: datetime | None = None


class Stats(msgspec.Struct, kw_only=True):
    """Counts of a session's records."""

    conversation_chunks: int = 0
    memories: int = 0
    tasks: int = 0
    artifacts: int = 0
    active_tasks: int = 0


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an agent that delegating needs."""

    name: str
    type: str
    last_seen_at: datetime | None


RECORDS: dict[str, type[Record]] = {
    "sessions": Session,
    "conversation_chunks": Chunk,
    "memories": Memory,
    "memory_revisions": MemoryRevision,
    "tasks": Task,
    "artifacts": Artifact,
    "artifact_revisions": ArtifactRevision,
}
"""By table, in the order in which tables refer to each other."""


def session_key(session_id: str) -> Key:
    """The key of a session."""
    return ("sessions", session_id)


def memory_key(session_id: str, key: str) -> Key:
    """The key of a memory."""
    return ("memories", session_id, key)


def shown_status(kind: MemoryType, status: MemoryStatus) -> MemoryStatus | None:
    """The status of a memory as readers see it: none for one that is open but has nothing to be done."""
    return None if status == "open" and kind not in OPEN_TYPES else status


def task_key(session_id: str, task_id: str) -> Key:
    """The key of a task."""
    return ("tasks", session_id, task_id)


def artifact_key(session_id: str, artifact_id: str) -> Key:
    """The key of an artifact."""
    return ("artifacts", session_id, artifact_id)


def readable_length(content: Raw) -> int:
    """The characters of a text, or of the JSON of any other value: the length in which it can be read in pieces."""
    text = bytes(content).decode()
    return len(msgspec.json.decode(content, type=str) if text.startswith('"') else text)


def searched_fields(record: Record) -> tuple[Any, ...]:
    """The values that a search for the record looks at."""
    match record:
        case Session():
            return record.title, record.context, record.participants
        case Task():
            return record.title, record.description, record.output, record.error, record.questions
        case Memory():
            return record.content, record.tags, record.type, record.status, record.updated_at
        case _:
            return (record,)
