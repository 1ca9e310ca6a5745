"""Tables in Postgres. Constraints are named by convention, so that migrations can refer to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    CheckConstraint,
    ColumnElement,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Text,
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import REAL, TSVECTOR
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

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


class Base(DeclarativeBase):
    """The base of all tables."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(referred_table_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        datetime: DateTime(timezone=True),
        list[str]: ARRAY(Text),
        bytes: JSON(none_as_null=True),
    }


class SessionRow(Base):
    """A session. It stores no counters: they are computed on read, so they are always correct."""

    __tablename__ = "sessions"
    __table_args__ = (
        CheckConstraint(_one_of("status", v.SessionStatus), name="status"),
        Index(None, "last_activity_at", "session_id"),
        Index(None, "created_at", "session_id"),
        Index("ix_sessions_completed", "completed_at", postgresql_where=text("completed_at IS NOT NULL")),
    )

    session_id: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str]
    participants: Mapped[list[str]]
    context: Mapped[str]
    status: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    last_activity_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]


def _of_session() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["session_id"], ["sessions.session_id"], ondelete="CASCADE")


class ChunkRow(Base):
    """A piece of conversation. The transcript is in the order of `said_at`; `position` is the order of storage."""

    __tablename__ = "conversation_chunks"
    __table_args__ = (
        _of_session(),
        CheckConstraint(_one_of("format", v.ChunkFormat), name="format"),
        Index(None, "session_id", "position"),
        Index("ix_conversation_chunks_said", "session_id", text("coalesce(start_at, created_at)"), "position"),
        Index(None, "position"),
        Index("ix_conversation_chunks_time", text("coalesce(start_at, created_at)"), "session_id"),
    )

    session_id: Mapped[str] = mapped_column(primary_key=True)
    chunk_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    content: Mapped[str]
    format: Mapped[str]
    start_at: Mapped[datetime | None]
    end_at: Mapped[datetime | None]
    participants: Mapped[list[str]]
    extracted_items: Mapped[bytes]
    metadata_: Mapped[bytes] = mapped_column("metadata")
    created_by: Mapped[str]
    created_at: Mapped[datetime]

    @hybrid_property
    def said_at(self) -> datetime:
        """The start of the conversation if the sender gave it, otherwise the time of storage."""
        return self.start_at or self.created_at

    @said_at.inplace.expression
    @classmethod
    def _said_at(cls) -> ColumnElement[datetime]:
        return func.coalesce(cls.start_at, cls.created_at)


class MemoryRow(Base):
    """A memory at its latest revision."""

    __tablename__ = "memories"
    __table_args__ = (
        _of_session(),
        CheckConstraint(_one_of("type", v.MemoryType), name="type"),
        CheckConstraint(_one_of("status", v.MemoryStatus), name="status"),
        Index(None, "session_id", "updated_at", "key"),
        Index(None, "updated_at"),
        Index("ix_memories_changed", "created_at", "updated_at", postgresql_where=text(CHANGED)),
        Index("ix_memories_due", "due", postgresql_where=text("due IS NOT NULL")),
        Index("ix_memories_tags", "tags", postgresql_using="gin"),
    )

    session_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(Integer)
    type: Mapped[str]
    content: Mapped[bytes]
    tags: Mapped[list[str]]
    status: Mapped[str]
    chunk_id: Mapped[str | None]
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    due: Mapped[str | None] = mapped_column(DUE)


class MemoryRevisionRow(Base):
    """An earlier revision of a memory."""

    __tablename__ = "memory_revisions"
    __table_args__ = (
        ForeignKeyConstraint(["session_id", "key"], ["memories.session_id", "memories.key"], ondelete="CASCADE"),
    )

    session_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(Integer, primary_key=True)
    type: Mapped[str]
    content: Mapped[bytes]
    tags: Mapped[list[str]]
    status: Mapped[str]
    chunk_id: Mapped[str | None]
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    due: Mapped[str | None] = mapped_column(DUE)


class TaskRow(Base):
    """A delegated task, with the lease of the agent that holds it."""

    __tablename__ = "tasks"
    __table_args__ = (
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

    session_id: Mapped[str] = mapped_column(primary_key=True)
    task_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    agent_name: Mapped[str | None]
    task_type: Mapped[str]
    title: Mapped[str | None]
    """NULL for tasks of versions without titles."""
    description: Mapped[str]
    description_hash: Mapped[str]
    priority: Mapped[int] = mapped_column(Integer)
    input_data: Mapped[bytes]
    depends_on: Mapped[list[str]]
    not_before: Mapped[datetime | None]
    max_attempts: Mapped[int] = mapped_column(Integer)
    attempt: Mapped[int] = mapped_column(Integer)
    status: Mapped[str]
    output: Mapped[bytes | None]
    error: Mapped[str | None]
    progress: Mapped[bytes | None]
    questions: Mapped[bytes]
    """The agents' questions with their answers, in order."""
    cancel_reason: Mapped[str | None]
    claimed_by: Mapped[str | None]
    """The agent that holds the task, or held it last."""
    claim_token: Mapped[str | None]
    """The hash of the claim token, which stays valid past the lease until another agent claims the task."""
    claim_source: Mapped[str | None]
    """The source of the key that claimed it."""
    worker: Mapped[str | None]
    """The agent's process or machine that claimed it, as named by the agent."""
    lease_seconds: Mapped[int | None] = mapped_column(Integer)
    """The duration of a lease extension."""
    claimed_at: Mapped[datetime | None]
    lease_expires_at: Mapped[datetime | None]
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    shown_at: Mapped[datetime | None]
    """The `updated_at` of the last state that get_task returned."""
    seen_by: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    """The sources, latest ones only, that this state was returned to. Void once the task changes or shown_at is
    cleared."""

    @hybrid_property
    def titled(self) -> str:
        """The title, or else the text to make one from."""
        return self.title or self.description

    @titled.inplace.expression
    @classmethod
    def _titled(cls) -> ColumnElement[str]:
        beginning = func.left(func.ltrim(cls.description, literal_column("E' \\t\\r\\n'")), literal_column("200"))
        return func.coalesce(cls.title, beginning)


class _Revised:
    """The times and the length of an artifact at one revision."""

    created_at: Mapped[datetime]
    """The time of the first revision."""
    revised_at: Mapped[datetime | None]
    """The time of this revision; NULL for the first."""
    characters: Mapped[int | None] = mapped_column(Integer)
    """The length of the content when it is read, so that lists need not read it. NULL for artifacts of versions without
    revisions."""

    @hybrid_property
    def updated_at(self) -> datetime:
        """The time of this revision."""
        return self.revised_at or self.created_at

    @updated_at.inplace.expression
    @classmethod
    def _updated_at(cls) -> ColumnElement[datetime]:
        return func.coalesce(cls.revised_at, cls.created_at)


class ArtifactRow(_Revised, Base):
    """A finished work product at its latest revision. Each revision gets a new `position`, after all others."""

    __tablename__ = "artifacts"
    __table_args__ = (
        _of_session(),
        ForeignKeyConstraint(["session_id", "task_id"], ["tasks.session_id", "tasks.task_id"]),
        Index(None, "session_id", "position"),
        Index(None, "position"),
        Index("ix_artifacts_time", text(REVISED_AT), "session_id"),
        Index("ix_artifacts_changed", "created_at", text(REVISED_AT), postgresql_where=text(REVISED)),
    )

    session_id: Mapped[str] = mapped_column(primary_key=True)
    artifact_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    revision: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    name: Mapped[str]
    type: Mapped[str]
    format: Mapped[str | None]
    content: Mapped[bytes]
    metadata_: Mapped[bytes] = mapped_column("metadata")
    task_id: Mapped[str | None]
    created_by: Mapped[str]


class PassageRow(Base):
    """A piece of a record's text, for the search. It is written with the record."""

    __tablename__ = "passages"
    __table_args__ = (
        _of_session(),
        Index(None, "session_id", "area", "item_id"),
        # Each search also reads the entries that were not merged into the index yet: few, in kB.
        Index("ix_passages_words", "words", postgresql_using="gin", postgresql_with={"gin_pending_list_limit": 256}),
    )

    passage_id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    session_id: Mapped[str]
    area: Mapped[str]
    item_id: Mapped[str]
    number: Mapped[int] = mapped_column(Integer)
    start: Mapped[int] = mapped_column(Integer)
    """Character of the record's text at which the passage begins; -1 in JSON."""
    text: Mapped[str]
    at: Mapped[datetime]
    type: Mapped[str | None]
    name: Mapped[str | None]
    tags: Mapped[list[str]]
    weight: Mapped[float] = mapped_column(REAL)
    words: Mapped[Any] = mapped_column(TSVECTOR)


class PassageToEmbedRow(Base):
    """A passage without a vector of its meaning. It may have been deleted meanwhile."""

    __tablename__ = "passages_to_embed"

    passage_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)


class ArtifactRevisionRow(_Revised, Base):
    """An earlier revision of an artifact."""

    __tablename__ = "artifact_revisions"
    __table_args__ = (
        ForeignKeyConstraint(
            ["session_id", "artifact_id"], ["artifacts.session_id", "artifacts.artifact_id"], ondelete="CASCADE"
        ),
    )

    session_id: Mapped[str] = mapped_column(primary_key=True)
    artifact_id: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str]
    type: Mapped[str]
    format: Mapped[str | None]
    content: Mapped[bytes]
    metadata_: Mapped[bytes] = mapped_column("metadata")
    task_id: Mapped[str | None]
    created_by: Mapped[str]


class AgentRow(Base):
    """An agent that tasks can be delegated to."""

    __tablename__ = "agents"

    name: Mapped[str] = mapped_column(primary_key=True)
    type: Mapped[str]
    command: Mapped[str | None]
    max_concurrent: Mapped[int] = mapped_column(Integer)
    capabilities: Mapped[list[str]]
    registered_at: Mapped[datetime]
    is_registered: Mapped[bool] = mapped_column(server_default=text("false"))
    """The agent was registered explicitly. Agents that only claim tasks are removed after some time."""
    last_seen_at: Mapped[datetime | None]


class DeliveryRow(Base):
    """The outcome of a webhook: the durable record that it took effect, which repeats are recognized by."""

    __tablename__ = "deliveries"
    __table_args__ = (
        CheckConstraint(_one_of("status", v.DeliveryStatus), name="status"),
        Index(None, "position"),
        Index(None, "session_id", "position"),
        Index(None, "decided_at"),
        Index("ix_deliveries_failed", "position", postgresql_where=text("status = 'failed'")),
        Index("ix_deliveries_parked", "source", "session_id", postgresql_where=text("status = 'parked'")),
    )

    source: Mapped[str] = mapped_column(primary_key=True)
    delivery_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    hash: Mapped[str]
    status: Mapped[str]
    command: Mapped[str]
    session_id: Mapped[str | None]
    accepted_at: Mapped[datetime]
    decided_at: Mapped[datetime]
    http_status: Mapped[int] = mapped_column(SmallInteger)
    response: Mapped[bytes | None]
    """The response to a command that changes data; None for reads."""
    entry: Mapped[bytes | None]
    """The complete inbox entry, only while the delivery is failed or parked."""
    traceback: Mapped[str | None]
    conflicts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    last_conflict_at: Mapped[datetime | None]


class EventRow(Base):
    """An event in a session's log. Within a session, ids increase in the order in which events become visible."""

    __tablename__ = "events"
    __table_args__ = (_of_session(),)

    session_id: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[int] = mapped_column(BigInteger, Identity(always=False), primary_key=True)
    """The time of writing in microseconds since 1970, or the previous id plus one if that is greater. Not comparable
    across sessions. Ids stay above all earlier ones, also after a restore or when a session is created again."""
    event: Mapped[str]
    status: Mapped[str]
    delivery_id: Mapped[str | None]
    source: Mapped[str]
    message: Mapped[str]
    data: Mapped[bytes]
    created_at: Mapped[datetime]


class ApiKeyRow(Base):
    """An API key or hook token, stored only as a hash. Revoked keys and their names are kept."""

    __tablename__ = "api_keys"
    __table_args__ = (Index(None, "name"), Index(None, "key_id", unique=True))

    key_hash: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str]
    name: Mapped[str]
    scopes: Mapped[list[str]]
    session_glob: Mapped[str | None]
    parent_hash: Mapped[str | None]
    """For an app's token: the hash of the key that the user signed in with."""
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    revoked_at: Mapped[datetime | None]
    revoked_by: Mapped[str | None]
