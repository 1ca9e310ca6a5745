"""Command definitions, from which decoding, the OpenAPI documents and the reference are generated.

Class docstrings are the descriptions that senders read. `sessions` implements the commands.
"""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta, Raw

from models import field_types as v
from models.due import DueBound, parse_due, parse_due_bound
from models.errors import Invalid
from models.timestamps import parse_moment, parse_zone

EMPTY_OBJECT = Raw(b"{}")
DEFAULT_ARTIFACT_TYPE = "document"
OMITTED = Raw(b"null")
"""The content of a command without any, known by identity: a null that was sent is another object."""
JsonObject = Annotated[Raw, Meta(description="Any JSON object", extra_json_schema={"type": "object"})]
JsonValue = Annotated[Raw, Meta(description="Any JSON value; stored exactly as sent")]
Items = Annotated[list[JsonValue], Meta(max_length=200)]
Moment = Annotated[str, Meta(max_length=64, description="ISO 8601 time, date, or age such as 7d")]
Later = Annotated[str, Meta(max_length=64, description="ISO 8601 time, date, or delay such as in 2h")]
TaskTitle = Annotated[str, Meta(max_length=200, pattern=v.LINE_PATTERN)]
Due = Annotated[str, Meta(max_length=64, description="Date, ISO 8601 time, or delay such as in 3d")]
Zone = Annotated[str, Meta(max_length=64, description="IANA name of the time zone for times without an offset")]


def _check_moment(text: str | None, field: str, *, ahead: bool = False, is_past: bool = False) -> None:
    now = datetime.now(UTC)
    moment = None if text is None else parse_moment(text, field=field, now=now, ahead=ahead)
    if is_past and moment is not None and moment > now + CLOCK_LEEWAY:
        raise Invalid(
            f"The {field} is in the future.",
            field=field,
            expected="a time in the past",
            hint=f"Send the time of the conversation with its UTC offset, or omit {field} if it took place now.",
        )


CLOCK_LEEWAY = timedelta(days=1)
"""Allowance for times in the future: clocks differ, and senders omit UTC offsets."""


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The base of all commands."""

    session: ClassVar[Literal["required", "optional", "derived", "none"]] = "required"
    scope: ClassVar[v.Scope] = "write"
    is_read: ClassVar[bool] = False
    in_batch: ClassVar[bool] = True

    @property
    def scopes(self) -> tuple[v.Scope, ...]:
        """The scopes that the sender needs; a batch needs those of its commands."""
        return (self.scope,)

    def __post_init__(self) -> None:
        for name in _OBJECT_FIELDS.get(type(self), ()):
            if not bytes(getattr(self, name)).lstrip().startswith(b"{"):
                raise Invalid(
                    f"The field {name!r} is not valid: expected object.",
                    code="invalid_field",
                    field=name,
                    expected="a JSON object",
                )
        for name in _NAME_FIELDS.get(type(self), ()):
            value = getattr(self, name)
            if isinstance(value, str) and not value.isascii():
                msgspec.structs.force_setattr(self, name, unicodedata.normalize("NFC", value))
            elif isinstance(value, list) and not "".join(value).isascii():
                msgspec.structs.force_setattr(self, name, [unicodedata.normalize("NFC", item) for item in value])


class ReadCommand(Command, frozen=True, kw_only=True):
    """A command that changes nothing."""

    scope = "read"
    is_read = True
    max_characters: v.MaxCharacters = v.DEFAULT_MAX_CHARACTERS


class PeriodCommand(ReadCommand, frozen=True, kw_only=True):
    """A read that can be limited to a period."""

    since: Moment | None = None
    until: Moment | None = None
    timezone: Zone = "UTC"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.period(datetime.now(UTC))

    def period(self, now: datetime) -> tuple[datetime | None, datetime | None]:
        """Return `since` (inclusive) and `until` (exclusive) as times. Raises Invalid."""
        zone = parse_zone(self.timezone)
        since = self.since and parse_moment(self.since, field="since", now=now, zone=zone)
        until = self.until and parse_moment(self.until, field="until", now=now, zone=zone, end_of_day=True)
        return since or None, until or None


class CreateSession(Command, frozen=True, kw_only=True):
    """Create a session. Give it a title; without a session_id, one is derived from the title."""

    session = "derived"
    title: Annotated[str, Meta(max_length=256, pattern=v.LINE_PATTERN)] = ""
    participants: v.Names = []
    context: str = ""


class RenameSession(Command, frozen=True, kw_only=True):
    """Change the title of a session."""

    title: v.Name


class PauseSession(Command, frozen=True, kw_only=True):
    """Pause a session: it rejects changes and its tasks cannot be claimed until it is resumed."""


class ResumeSession(Command, frozen=True, kw_only=True):
    """Resume a paused or completed session."""


class CompleteSession(Command, frozen=True, kw_only=True):
    """Complete a session without open tasks: it stays readable, but rejects changes until it is resumed."""

    open_tasks: Literal["refuse", "cancel"] = "refuse"

    @property
    def scopes(self) -> tuple[v.Scope, ...]:
        return (self.scope, "delegate") if self.open_tasks == "cancel" else (self.scope,)


class DeleteSession(Command, frozen=True, kw_only=True):
    """Permanently delete a session and everything in it. Repeat its id in `confirm`."""

    scope = "admin"
    in_batch = False
    confirm: v.Id


class ListSessions(PeriodCommand, frozen=True, kw_only=True):
    """List sessions, the most recently active first; with `q` those whose title, context or id has these words."""

    session = "none"
    in_batch = False
    q: v.Query | None = None
    filter: Literal["all", "active", "paused", "completed"] = "all"
    limit: v.Limit = 20
    cursor: v.Cursor | None = None


class GetSessionSummary(ReadCommand, frozen=True, kw_only=True):
    """Get the title, participants, context, status and counts of a session."""


class ResumeBundle(ReadCommand, frozen=True, kw_only=True):
    """Get everything another LLM needs to continue a session. Without session_id: the most recently active one."""

    session = "optional"


class ReadConversation(ReadCommand, frozen=True, kw_only=True):
    """Read the conversation word for word, in order: from its beginning, or on from a chunk and an offset in it."""

    chunk_id: v.Id | None = None
    offset: v.Offset = 0
    limit: v.Limit = 50
    cursor: v.Cursor | None = None


class ExtractedItems(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Items found in a piece of conversation; each becomes a memory of its type."""

    ideas: Items = []
    decisions: Items = []
    questions: Items = []
    action_items: Items = []
    facts: Items = []
    preferences: Items = []
    risks: Items = []
    notes: Items = []


class ConversationChunk(Command, frozen=True, kw_only=True):
    """Append a piece of conversation. Split texts longer than about 100,000 characters."""

    content: Annotated[str, Meta(min_length=1)]
    chunk_id: v.Id | None = None
    format: v.ChunkFormat = "dialogue"
    start_time: Moment | None = None
    end_time: Moment | None = None
    participants: v.Names = []
    extracted_items: ExtractedItems = ExtractedItems()
    metadata: JsonObject = EMPTY_OBJECT

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_moment(self.start_time, "start_time", is_past=True)
        _check_moment(self.end_time, "end_time", is_past=True)


class StoreMemory(Command, frozen=True, kw_only=True):
    """Store a memory, or change one by its key: that is a new revision, which keeps all fields that are omitted."""

    content: JsonValue = OMITTED
    type: v.MemoryType | None = None
    key: v.Name | None = None
    tags: v.Names | None = None
    status: v.MemoryStatus | None = None
    due: Due | None = None
    if_revision: Annotated[int, Meta(ge=0, le=2_147_483_647)] | None = None

    @property
    def is_update(self) -> bool:
        """Return whether a stored content is kept: none is given, or null along with a status or due date, since some
        senders write null for what they omit."""
        marks = self.status is not None or self.due is not None
        return self.content is OMITTED or (marks and bytes(self.content) == b"null")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.due:
            parse_due(self.due, field="due", now=datetime.now(UTC))
        changed = (self.tags, self.status, self.due)
        if self.content is OMITTED and (self.key is None or all(value is None for value in changed)):
            raise Invalid(
                "The field 'content' is missing.",
                code="missing_field",
                field="content",
                hint="It may be omitted only to change the status, due date or tags of a memory by its key.",
            )


class RetrieveMemory(ReadCommand, frozen=True, kw_only=True):
    """Get a memory by its key, at its latest revision or the one given."""

    key: v.Name
    revision: v.Revision | None = None
    offset: v.Offset = 0


class QueryMemories(PeriodCommand, frozen=True, kw_only=True):
    """Find memories by type, tags (any), status and due date. Without session_id: in all but completed sessions."""

    session = "optional"
    type: v.MemoryType | None = None
    tags: v.Names = []
    status: v.MemoryStatus | None = None
    due_after: Due | None = None
    due_before: Due | None = None
    sort: v.MemoryOrder | None = None
    include_completed: bool = False
    limit: v.Limit = 10
    cursor: v.Cursor | None = None

    @property
    def is_by_due(self) -> bool:
        """Return whether to list what is due first, first."""
        return self.sort == "due" or (self.sort is None and bool(self.due_after or self.due_before))

    def due_period(self, now: datetime) -> tuple[DueBound | None, DueBound | None]:
        """Return `due_after` (inclusive) and `due_before` (a date inclusive, a time exclusive). Raises Invalid."""
        zone = parse_zone(self.timezone)
        after = self.due_after and parse_due_bound(self.due_after, field="due_after", now=now, zone=zone)
        before = self.due_before and parse_due_bound(
            self.due_before, field="due_before", now=now, zone=zone, end_of_day=True
        )
        return after or None, before or None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.due_period(datetime.now(UTC))


class ListMemories(ReadCommand, frozen=True, kw_only=True):
    """List all memories of a session, the latest first."""

    limit: v.Limit = 50
    cursor: v.Cursor | None = None


class DeleteMemory(Command, frozen=True, kw_only=True):
    """Delete a memory and all its revisions."""

    scope = "admin"
    key: v.Name


class Search(PeriodCommand, frozen=True, kw_only=True):
    """Search conversations, memories, artifacts, tasks and sessions by words and meaning, in one session or in all."""

    session = "optional"
    q: v.Query
    areas: Annotated[list[v.SearchArea], Meta(max_length=5)] = msgspec.field(default_factory=list, name="in")
    type: v.Label | None = None
    tags: v.Names = []
    limit: v.Limit = 10
    cursor: v.Cursor | None = None


class RecentActivity(PeriodCommand, frozen=True, kw_only=True):
    """List what happened, the latest first: sessions created or completed, conversation, memories, tasks, artifacts."""

    session = "optional"
    limit: v.Limit = 20
    cursor: v.Cursor | None = None


class DelegateTask(Command, frozen=True, kw_only=True):
    """Delegate a task to an agent, which claims it, works on it and adds the result to the session."""

    scope = "delegate"
    description: Annotated[str, Meta(min_length=1, max_length=100_000, pattern=r"\S")]
    title: TaskTitle = ""
    task_id: v.Id | None = None
    agent_name: v.Id | None = None
    task_type: v.Label = "general"
    priority: v.Priority = 0
    input_data: JsonObject = EMPTY_OBJECT
    depends_on: Annotated[list[v.Id], Meta(max_length=100)] = []
    not_before: Later | None = None
    max_attempts: v.Attempts = 3
    allow_duplicate: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_moment(self.not_before, "not_before", ahead=True)


class GetTask(ReadCommand, frozen=True, kw_only=True):
    """Get a task with its status, result or question. With `wait`: when it finishes or asks, or after that time."""

    task_id: v.Id
    offset: v.Offset = 0
    wait: Annotated[float, Meta(ge=0, le=v.MAX_WAIT_SECONDS, description="Seconds; ignored in a batch")] = 0


class ListTasks(PeriodCommand, frozen=True, kw_only=True):
    """List tasks in the order in which they will be claimed. Without session_id: of all sessions."""

    session = "optional"
    status: v.TaskStatus | None = None
    agent_name: v.Id | None = None
    task_type: v.Label | None = None
    limit: v.Limit = 20
    cursor: v.Cursor | None = None


class CancelTask(Command, frozen=True, kw_only=True):
    """Cancel an unfinished task; an agent working on it is notified."""

    scope = "delegate"
    task_id: v.Id
    reason: Annotated[str, Meta(max_length=2_000)] = ""


class AnswerTask(Command, frozen=True, kw_only=True):
    """Answer an agent's question; the task returns to the queue with the answer."""

    scope = "delegate"
    task_id: v.Id
    answer: Annotated[str, Meta(min_length=1, max_length=100_000)]


class AddArtifact(Command, frozen=True, kw_only=True):
    """Add a finished work product, such as code or a report, or a revision of it under its artifact_id."""

    name: v.Name
    content: JsonValue
    artifact_id: v.Id | None = None
    type: v.Label = DEFAULT_ARTIFACT_TYPE
    format: v.Label | None = None
    metadata: JsonObject = EMPTY_OBJECT
    task_id: v.Id | None = None
    if_revision: Annotated[int, Meta(ge=0, le=2_147_483_647)] | None = None


class GetArtifact(ReadCommand, frozen=True, kw_only=True):
    """Get an artifact with its content, at its latest revision or the one given."""

    artifact_id: v.Id
    revision: v.Revision | None = None
    offset: v.Offset = 0


class ListArtifacts(PeriodCommand, frozen=True, kw_only=True):
    """List artifacts, or one artifact's revisions, without content, the latest first. Without session_id: of all."""

    session = "optional"
    artifact_id: v.Id | None = None
    type: v.Label | None = None
    task_id: v.Id | None = None
    limit: v.Limit = 20
    cursor: v.Cursor | None = None


class BatchItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One command of a batch."""

    command: str
    data: JsonObject = EMPTY_OBJECT


class Batch(Command, frozen=True, kw_only=True):
    """Run up to 500 commands on one session in order: all or nothing, or with mode `partial` each on its own."""

    session = "derived"
    in_batch = False
    commands: Annotated[list[BatchItem], Meta(min_length=1, max_length=v.BATCH_LIMIT)]
    mode: Literal["atomic", "partial"] = "atomic"
    max_characters: v.MaxCharacters = v.DEFAULT_MAX_CHARACTERS


COMMANDS: dict[str, type[Command]] = {
    "create_session": CreateSession,
    "rename_session": RenameSession,
    "pause_session": PauseSession,
    "resume_session": ResumeSession,
    "complete_session": CompleteSession,
    "delete_session": DeleteSession,
    "list_sessions": ListSessions,
    "get_session_summary": GetSessionSummary,
    "resume_bundle": ResumeBundle,
    "conversation_chunk": ConversationChunk,
    "read_conversation": ReadConversation,
    "store_memory": StoreMemory,
    "retrieve_memory": RetrieveMemory,
    "query_memories": QueryMemories,
    "list_memories": ListMemories,
    "delete_memory": DeleteMemory,
    "search": Search,
    "recent_activity": RecentActivity,
    "delegate_task": DelegateTask,
    "get_task": GetTask,
    "list_tasks": ListTasks,
    "cancel_task": CancelTask,
    "answer_task": AnswerTask,
    "add_artifact": AddArtifact,
    "get_artifact": GetArtifact,
    "list_artifacts": ListArtifacts,
    "batch": Batch,
}


def name_of(command: Command) -> str:
    """Return the command's name on the wire."""
    return _WIRE_NAMES[type(command)]


_WIRE_NAMES = {definition: name for name, definition in COMMANDS.items()}


def _holds_names(hint: Any) -> bool:
    return hint == v.Name or hint == v.Names or any(_holds_names(part) for part in get_args(hint))


_OBJECT_FIELDS: dict[type[Command], tuple[str, ...]] = {
    definition: tuple(
        field for field, hint in get_type_hints(definition, include_extras=True).items() if hint == JsonObject
    )
    for definition in COMMANDS.values()
}
_NAME_FIELDS: dict[type[Command], tuple[str, ...]] = {
    definition: tuple(
        field
        for field, hint in get_type_hints(definition, include_extras=True).items()
        if field == "title" or _holds_names(hint)
    )
    for definition in COMMANDS.values()
}
