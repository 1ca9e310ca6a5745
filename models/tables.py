"""Tables in Postgres. Constraints are named by convention, so that migrations can refer to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Named,
    SmallInteger,
    String,
    Table,
    Text,
    TypedColumns,
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import REAL, TSVECTOR
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeEngine

from models import field_types as v

SCHEMA_REVISION = "0015"
"""The latest migration; workers wait until it is applied."""
UNSEEN_BY_DELEGATOR = (
    "status IN ('completed', 'failed', 'input_required')"
    " AND (shown_at IS NULL OR shown_at < updated_at OR created_by <> ALL (seen_by))"
)
"""Tasks with updates that their delegator has not seen."""
CHANGED = "updated_at > created_at"
"""Memories and tasks that changed since they were created, which lists of a past period show at their creation."""
REVISED_AT = "coalesce(revised_at, created_at)"
REVISED = f"{REVISED_AT} > created_at"
"""The same for artifacts."""

DUE = Text(collation="C")
"""A date, or a time in UTC, in the order of time: `2026-03-14` is less than `2026-03-14T15:00:00Z`."""


def _one_of(column: str, values: Any) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values.__args__)})"


METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)
TYPES: dict[type[TypeEngine[Any]], TypeEngine[Any]] = {
    String: Text(),
    DateTime: DateTime(timezone=True),
    LargeBinary: JSON(none_as_null=True),
}
"""The types of columns annotated as str, datetime and bytes, instead of SQLAlchemy's own."""
TEXTS = ARRAY(Text)

Columns = TypeVar("Columns", bound=TypedColumns)


def _table(name: str, columns: type[Columns], *more: SchemaItem) -> Table[Columns]:
    table = Table(name, METADATA, columns, *more)
    for column in table.columns:
        column.type = TYPES.get(type(column.type), column.type)
        column.name = column.key = str(column.name)  # Of SQLAlchemy's own subclass, which msgspec takes for no string.
    return table


class SessionColumns(TypedColumns):
    """A session. It stores no counters: they are computed on read, so they are always correct."""

    session_id: Named[str] = Column(primary_key=True)
    title: Named[str]
    participants: Named[list[str]] = Column(TEXTS)
    context: Named[str]
    status: Named[str]
    created_by: Named[str]
    created_at: Named[datetime]
    last_activity_at: Named[datetime]
    completed_at: Named[datetime | None]


SESSIONS = _table(
    "sessions",
    SessionColumns,
    CheckConstraint(_one_of("status", v.SessionStatus), name="status"),
    Index(None, "last_activity_at", "session_id"),
    Index(None, "created_at", "session_id"),
    Index("ix_sessions_completed", "completed_at", postgresql_where=text("completed_at IS NOT NULL")),
)


def _of_session() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["session_id"], ["sessions.session_id"], ondelete="CASCADE")


class ChunkColumns(TypedColumns):
    """A piece of conversation. The transcript is in the order of `said_at`; `position` is the order of storage."""

    session_id: Named[str] = Column(primary_key=True)
    chunk_id: Named[str] = Column(primary_key=True)
    position: Named[int] = Column(BigInteger, Identity(always=True))
    content: Named[str]
    format: Named[str]
    start_at: Named[datetime | None]
    end_at: Named[datetime | None]
    participants: Named[list[str]] = Column(TEXTS)
    extracted_items: Named[bytes]
    metadata: Named[bytes]
    created_by: Named[str]
    created_at: Named[datetime]


CHUNKS = _table(
    "conversation_chunks",
    ChunkColumns,
    _of_session(),
    CheckConstraint(_one_of("format", v.ChunkFormat), name="format"),
    Index(None, "session_id", "position"),
    Index("ix_conversation_chunks_said", "session_id", text("coalesce(start_at, created_at)"), "position"),
    Index(None, "position"),
    Index("ix_conversation_chunks_time", text("coalesce(start_at, created_at)"), "session_id"),
)


class MemoryColumns(TypedColumns):
    """A memory at its latest revision."""

    session_id: Named[str] = Column(primary_key=True)
    key: Named[str] = Column(primary_key=True)
    revision: Named[int]
    type: Named[str]
    content: Named[bytes]
    tags: Named[list[str]] = Column(TEXTS)
    status: Named[str]
    chunk_id: Named[str | None]
    created_by: Named[str]
    created_at: Named[datetime]
    updated_at: Named[datetime]
    due: Named[str | None] = Column(DUE)


MEMORIES = _table(
    "memories",
    MemoryColumns,
    _of_session(),
    CheckConstraint(_one_of("type", v.MemoryType), name="type"),
    CheckConstraint(_one_of("status", v.MemoryStatus), name="status"),
    Index(None, "session_id", "updated_at", "key"),
    Index(None, "updated_at"),
    Index("ix_memories_changed", "created_at", "updated_at", postgresql_where=text(CHANGED)),
    Index("ix_memories_due", "due", postgresql_where=text("due IS NOT NULL")),
    Index("ix_memories_tags", "tags", postgresql_using="gin"),
)


class MemoryRevisionColumns(TypedColumns):
    """An earlier revision of a memory."""

    session_id: Named[str] = Column(primary_key=True)
    key: Named[str] = Column(primary_key=True)
    revision: Named[int] = Column(Integer, primary_key=True)
    type: Named[str]
    content: Named[bytes]
    tags: Named[list[str]] = Column(TEXTS)
    status: Named[str]
    chunk_id: Named[str | None]
    created_by: Named[str]
    created_at: Named[datetime]
    updated_at: Named[datetime]
    due: Named[str | None] = Column(DUE)


MEMORY_REVISIONS = _table(
    "memory_revisions",
    MemoryRevisionColumns,
    ForeignKeyConstraint(["session_id", "key"], ["memories.session_id", "memories.key"], ondelete="CASCADE"),
)


class TaskColumns(TypedColumns):
    """A delegated task, with the lease of the agent that holds it."""

    session_id: Named[str] = Column(primary_key=True)
    task_id: Named[str] = Column(primary_key=True)
    position: Named[int] = Column(BigInteger, Identity(always=True))
    agent_name: Named[str | None]
    task_type: Named[str]
    title: Named[str | None]
    """NULL for tasks of versions without titles."""
    description: Named[str]
    description_hash: Named[str]
    priority: Named[int]
    input_data: Named[bytes]
    depends_on: Named[list[str]] = Column(TEXTS)
    not_before: Named[datetime | None]
    max_attempts: Named[int]
    attempt: Named[int]
    status: Named[str]
    output: Named[bytes | None]
    error: Named[str | None]
    progress: Named[bytes | None]
    questions: Named[bytes]
    """The agents' questions with their answers, in order."""
    cancel_reason: Named[str | None]
    claimed_by: Named[str | None]
    """The agent that holds the task, or held it last."""
    claim_token: Named[str | None]
    """The hash of the claim token, which stays valid past the lease until another agent claims the task."""
    claim_source: Named[str | None]
    """The source of the key that claimed it."""
    worker: Named[str | None]
    """The agent's process or machine that claimed it, as named by the agent."""
    lease_seconds: Named[int | None]
    """The duration of a lease extension."""
    claimed_at: Named[datetime | None]
    lease_expires_at: Named[datetime | None]
    created_by: Named[str]
    created_at: Named[datetime]
    updated_at: Named[datetime]
    finished_at: Named[datetime | None]
    shown_at: Named[datetime | None]
    """The `updated_at` of the last state that get_task returned."""
    seen_by: Named[list[str]] = Column(TEXTS, server_default=text("'{}'"))
    """The sources, latest ones only, that this state was returned to. Void once the task changes or shown_at is
    cleared."""


TASKS = _table(
    "tasks",
    TaskColumns,
    _of_session(),
    CheckConstraint(_one_of("status", v.TaskStatus), name="status"),
    CheckConstraint("(status IN ('claimed', 'running')) = (lease_expires_at IS NOT NULL)", name="lease"),
    Index(None, "session_id", "position"),
    Index(
        "ix_tasks_claimable",
        "agent_name",
        text("priority DESC"),
        "position",
        postgresql_where=text("status = 'pending'"),
    ),
    Index(
        "ix_tasks_claimable_types",
        "task_type",
        text("priority DESC"),
        "position",
        postgresql_where=text("status = 'pending' AND agent_name IS NULL"),
    ),
    Index("ix_tasks_held", "claimed_by", postgresql_where=text("lease_expires_at IS NOT NULL")),
    Index("ix_tasks_holders", "claim_source", "session_id", postgresql_where=text("lease_expires_at IS NOT NULL")),
    Index("ix_tasks_unfinished", text("priority DESC"), "position", postgresql_where=text("finished_at IS NULL")),
    Index("ix_tasks_open", "session_id", "position", postgresql_where=text("finished_at IS NULL")),
    Index("ix_tasks_finished", "finished_at", "position", postgresql_where=text("finished_at IS NOT NULL")),
    Index("ix_tasks_news", "session_id", postgresql_where=text("shown_at IS NULL OR shown_at < updated_at")),
    Index("ix_tasks_shown", "session_id", "updated_at", postgresql_where=text("shown_at >= updated_at")),
    Index("ix_tasks_delegated", "created_by", "updated_at", postgresql_where=text(UNSEEN_BY_DELEGATOR)),
    Index(None, "updated_at", "session_id"),
    Index("ix_tasks_changed", "created_at", "updated_at", postgresql_where=text(CHANGED)),
    Index("ix_tasks_leases", "lease_expires_at", postgresql_where=text("lease_expires_at IS NOT NULL")),
    Index("uq_tasks_claim_token", "claim_token", unique=True),
)


class RevisedColumns(TypedColumns):
    """The times and the length of an artifact at one revision."""

    created_at: Named[datetime]
    """The time of the first revision."""
    revised_at: Named[datetime | None]
    """The time of this revision; NULL for the first."""
    characters: Named[int | None]
    """The length of the content when it is read, so that lists need not read it. NULL for artifacts of versions without
    revisions."""


class ArtifactColumns(RevisedColumns):
    """A finished work product at its latest revision. Each revision gets a new `position`, after all others."""

    session_id: Named[str] = Column(primary_key=True)
    artifact_id: Named[str] = Column(primary_key=True)
    position: Named[int] = Column(BigInteger, Identity(always=True))
    revision: Named[int] = Column(Integer, server_default=text("1"))
    name: Named[str]
    type: Named[str]
    format: Named[str | None]
    content: Named[bytes]
    metadata: Named[bytes]
    task_id: Named[str | None]
    created_by: Named[str]


ARTIFACTS = _table(
    "artifacts",
    ArtifactColumns,
    _of_session(),
    ForeignKeyConstraint(["session_id", "task_id"], ["tasks.session_id", "tasks.task_id"]),
    Index(None, "session_id", "position"),
    Index(None, "position"),
    Index("ix_artifacts_time", text(REVISED_AT), "session_id"),
    Index("ix_artifacts_changed", "created_at", text(REVISED_AT), postgresql_where=text(REVISED)),
)


class PassageColumns(TypedColumns):
    """A piece of a record's text, for the search. It is written with the record."""

    passage_id: Named[int] = Column(BigInteger, Identity(always=True), primary_key=True)
    session_id: Named[str]
    area: Named[str]
    item_id: Named[str]
    number: Named[int]
    start: Named[int]
    """Character of the record's text at which the passage begins; -1 in JSON."""
    text: Named[str]
    at: Named[datetime]
    type: Named[str | None]
    name: Named[str | None]
    tags: Named[list[str]] = Column(TEXTS)
    weight: Named[float] = Column(REAL)
    words: Named[Any] = Column(TSVECTOR)


PASSAGES = _table(
    "passages",
    PassageColumns,
    _of_session(),
    Index(None, "session_id", "area", "item_id"),
    # Each search also reads the entries that were not merged into the index yet: few, in kB.
    Index("ix_passages_words", "words", postgresql_using="gin", postgresql_with={"gin_pending_list_limit": 256}),
)


class PassageToEmbedColumns(TypedColumns):
    """A passage without a vector of its meaning. It may have been deleted meanwhile."""

    passage_id: Named[int] = Column(BigInteger, primary_key=True, autoincrement=False)


PASSAGES_TO_EMBED = _table(
    "passages_to_embed",
    PassageToEmbedColumns,
)


class ArtifactRevisionColumns(RevisedColumns):
    """An earlier revision of an artifact."""

    session_id: Named[str] = Column(primary_key=True)
    artifact_id: Named[str] = Column(primary_key=True)
    revision: Named[int] = Column(Integer, primary_key=True)
    name: Named[str]
    type: Named[str]
    format: Named[str | None]
    content: Named[bytes]
    metadata: Named[bytes]
    task_id: Named[str | None]
    created_by: Named[str]


ARTIFACT_REVISIONS = _table(
    "artifact_revisions",
    ArtifactRevisionColumns,
    ForeignKeyConstraint(
        ["session_id", "artifact_id"], ["artifacts.session_id", "artifacts.artifact_id"], ondelete="CASCADE"
    ),
)


class AgentColumns(TypedColumns):
    """An agent that tasks can be delegated to."""

    name: Named[str] = Column(primary_key=True)
    type: Named[str]
    command: Named[str | None]
    max_concurrent: Named[int]
    capabilities: Named[list[str]] = Column(TEXTS)
    registered_at: Named[datetime]
    is_registered: Named[bool] = Column(server_default=text("false"))
    """The agent was registered explicitly. Agents that only claim tasks are removed after some time."""
    last_seen_at: Named[datetime | None]


AGENTS = _table(
    "agents",
    AgentColumns,
)


class DeliveryColumns(TypedColumns):
    """The outcome of a webhook: the durable record that it took effect, which repeats are recognized by."""

    source: Named[str] = Column(primary_key=True)
    delivery_id: Named[str] = Column(primary_key=True)
    position: Named[int] = Column(BigInteger, Identity(always=True))
    hash: Named[str]
    status: Named[str]
    command: Named[str]
    session_id: Named[str | None]
    accepted_at: Named[datetime]
    decided_at: Named[datetime]
    http_status: Named[int] = Column(SmallInteger)
    response: Named[bytes | None]
    """The response to a command that changes data; None for reads."""
    entry: Named[bytes | None]
    """The complete inbox entry, only while the delivery is failed or parked."""
    traceback: Named[str | None]
    conflicts: Named[int] = Column(Integer, server_default=text("0"))
    last_conflict_at: Named[datetime | None]


DELIVERIES = _table(
    "deliveries",
    DeliveryColumns,
    CheckConstraint(_one_of("status", v.DeliveryStatus), name="status"),
    Index(None, "position"),
    Index(None, "session_id", "position"),
    Index(None, "decided_at"),
    Index("ix_deliveries_failed", "position", postgresql_where=text("status = 'failed'")),
    Index("ix_deliveries_parked", "source", "session_id", postgresql_where=text("status = 'parked'")),
)


class EventColumns(TypedColumns):
    """An event in a session's log. Within a session, ids increase in the order in which events become visible."""

    session_id: Named[str] = Column(primary_key=True)
    event_id: Named[int] = Column(BigInteger, Identity(always=False), primary_key=True)
    """The time of writing in microseconds since 1970, or the previous id plus one if that is greater. Not comparable
    across sessions. Ids stay above all earlier ones, also after a restore or when a session is created again."""
    event: Named[str]
    status: Named[str]
    delivery_id: Named[str | None]
    source: Named[str]
    message: Named[str]
    data: Named[bytes]
    created_at: Named[datetime]


EVENTS = _table(
    "events",
    EventColumns,
    _of_session(),
)


class ApiKeyColumns(TypedColumns):
    """An API key or hook token, stored only as a hash. Revoked keys and their names are kept."""

    key_hash: Named[str] = Column(primary_key=True)
    key_id: Named[str]
    name: Named[str]
    scopes: Named[list[str]] = Column(TEXTS)
    session_glob: Named[str | None]
    parent_hash: Named[str | None]
    """For an app's token: the hash of the key that the user signed in with."""
    created_at: Named[datetime]
    created_by: Named[str]
    revoked_at: Named[datetime | None]
    revoked_by: Named[str | None]


API_KEYS = _table("api_keys", ApiKeyColumns, Index(None, "name"), Index(None, "key_id", unique=True))


def said_at(chunks: ChunkColumns) -> ColumnElement[datetime]:
    """The start of the conversation if the sender gave it, otherwise the time of storage."""
    return func.coalesce(chunks.start_at, chunks.created_at)


def titled(tasks: TaskColumns) -> ColumnElement[str]:
    """The title of a task, or else the text to make one from."""
    beginning = func.left(func.ltrim(tasks.description, literal_column("E' \\t\\r\\n'")), literal_column("200"))
    return func.coalesce(tasks.title, beginning)


def updated_at(artifacts: RevisedColumns) -> ColumnElement[datetime]:
    """The time of an artifact's revision."""
    return func.coalesce(artifacts.revised_at, artifacts.created_at)
