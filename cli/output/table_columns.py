"""Output schemas: the columns of tables and TSV, and the fields for `--json`, of each kind of item."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Kind = Literal["id", "name", "text", "content", "json", "state", "time", "date", "number", "plain"]
"""`content` is that of a memory, which is put into words; `json` is shown as a block of its own."""


class Column(NamedTuple):
    """A field by its path, such as `stats.memories`. Without a heading it is not shown in tables."""

    path: str
    heading: str = ""
    kind: Kind = "plain"


class OutputSchema(NamedTuple):
    """The output of one kind of item. Columns are ordered by importance: narrow terminals drop the last ones first."""

    columns: tuple[Column, ...]
    more: tuple[str, ...] = ()
    """Additional fields for `--json`."""
    id_path: str = "session_id"
    """The path of the field that `id` refers to."""
    as_cards: bool = False
    """Show items as cards instead of table rows, because their text matters most."""
    least_columns: int = 2
    """Without so many of the first columns a table is of no use, and cards are shown."""

    @property
    def fields(self) -> list[str]:
        """The fields that `--json` accepts."""
        paths = [column.path for column in self.columns]
        return list(dict.fromkeys(["id", *paths, *(path.split(".")[0] for path in paths), *self.more]))

    def pick(self, item: dict[str, Any], field: str) -> Any:
        """Return a field of an item, or None if it is missing."""
        return at_path(item, self.id_path if field == "id" and "id" not in item else field)


def at_path(item: Any, path: str) -> Any:
    """Return the value at the path, or None."""
    for name in path.split("."):
        item = item.get(name) if isinstance(item, dict) else None
    return item


_SESSION_TITLE = Column("session_title", "Session", "name")

SESSION = OutputSchema(
    (
        Column("session_id", "ID", "id"),
        Column("title", "Title", "name"),
        Column("status", "Status", "state"),
        Column("last_activity", "Active", "time"),
        Column("stats.conversation_chunks", "Chunks", "number"),
        Column("stats.memories", "Memories", "number"),
        Column("stats.tasks", "Tasks", "number"),
        Column("stats.artifacts", "Artifacts", "number"),
        Column("stats.active_tasks"),
        Column("created_at"),
        Column("duration_minutes"),
        Column("participants"),
    ),
    more=("context", "created", "truncated"),
)
SESSION_IN_FULL = OutputSchema((*SESSION.columns, Column("context")), more=("created", "truncated"))
BUNDLE = OutputSchema(
    (
        *SESSION_IN_FULL.columns,
        *(
            Column(name)
            for name in (
                *("open_questions", "action_items", "decisions", "tasks", "facts", "ideas", "notes"),
                *("other_memories", "artifacts", "conversation", "left_out"),
            )
        ),
    ),
    more=("session", "created", "truncated", "read_on"),
)

_HIT_END = (Column("rank"), Column("match"))
CONVERSATION_HIT = OutputSchema(
    (
        _SESSION_TITLE,
        Column("session_id", "ID", "id"),
        Column("chunk_id", "Chunk", "plain"),
        Column("at", "", "time"),
        Column("snippet", "Text", "text"),
        *_HIT_END,
    ),
    more=("area",),
    id_path="chunk_id",
    as_cards=True,
)
MEMORY_HIT = OutputSchema(
    (
        Column("key", "Key", "name"),
        Column("type", "Type", "plain"),
        Column("session_title", "Session", "plain"),
        Column("session_id", "ID", "id"),
        Column("at", "", "time"),
        Column("snippet", "Text", "text"),
        *_HIT_END,
    ),
    more=("area",),
    id_path="key",
    as_cards=True,
)
HIT = OutputSchema(
    (
        Column("area", "Area", "name"),
        _SESSION_TITLE,
        Column("session_id", "ID", "id"),
        Column("chunk_id", "Chunk"),
        Column("key", "Key"),
        Column("task_id", "Task"),
        Column("artifact_id", "Artifact"),
        Column("name", "Name"),
        Column("type", "Type"),
        Column("status", "Status", "state"),
        Column("at", "", "time"),
        Column("snippet", "Text", "text"),
        *_HIT_END,
    ),
    more=("offset",),
    as_cards=True,
)
MEMORY = OutputSchema(
    (
        Column("key", "Key", "name"),
        Column("type", "Type", "plain"),
        Column("status", "Status", "state"),
        Column("updated_at", "Updated", "time"),
        Column("content", "Content", "content"),
        Column("due", "Due", "date"),
        Column("tags", "Tags", "plain"),
        Column("revision"),
        Column("session_id"),
        Column("created_at"),
    ),
    more=("session_title", "chunk_id", "truncated", "next_offset", "encoding"),
    id_path="key",
    as_cards=True,
)
CHUNK = OutputSchema(
    (
        Column("chunk_id", "Chunk", "id"),
        Column("created_at", "Time", "time"),
        Column("format", "Format", "plain"),
        Column("participants", "Participants", "plain"),
        Column("content", "Content", "text"),
        Column("start_at"),
        Column("end_at"),
        Column("created_by"),
    ),
    more=("metadata", "said_at", "total_characters", "previous_chunk_id"),
    id_path="chunk_id",
    as_cards=True,
)
ACTIVITY = OutputSchema(
    (
        Column("kind", "Kind", "name"),
        Column("event", "Event", "plain"),
        Column("status", "Status", "state"),
        Column("at", "", "time"),
        _SESSION_TITLE,
        Column("session_id", "ID", "id"),
        Column("excerpt", "Text", "text"),
    ),
    more=(
        *("chunk_id", "key", "task_id", "artifact_id", "type", "name", "title", "agent_name", "participants"),
        *("total_characters", "truncated"),
    ),
    as_cards=True,
)
TASK = OutputSchema(
    (
        Column("task_id", "ID", "id"),
        Column("title", "Task", "name"),
        Column("status", "Status", "state"),
        Column("session_id", "Session", "plain"),
        Column("agent_name", "Agent", "plain"),
        Column("updated_at", "Updated", "time"),
        Column("priority", "Priority", "number"),
        Column("task_type", "Type", "plain"),
        Column("session_title"),
        Column("description"),
        Column("question"),
        Column("error"),
        Column("attempt"),
        Column("created_at"),
        Column("finished_at"),
    ),
    more=(
        *("progress", "max_attempts", "depends_on", "blocked_by", "cancel_reason", "claimed_by", "created_by"),
        *("not_before", "claimed_at", "lease_expires_at", "truncated"),
    ),
    id_path="task_id",
    least_columns=4,  # An id means nothing without its session.
)
TASK_IN_FULL = TASK._replace(
    columns=(
        *TASK.columns,
        Column("progress", "Progress", "content"),
        Column("output", "Output", "content"),
        Column("input_data", "Input", "json"),
        Column("artifacts", "Artifacts", "plain"),
    ),
    more=(
        *(name for name in TASK.more if name != "progress"),
        "questions",
        "created",
        "agents_online",
        "ahead_in_queue",
    ),
)
STORED = OutputSchema(
    (
        Column("key", "Key", "name"),
        Column("type", "Type"),
        Column("status", "Status", "state"),
        Column("revision", "Revision", "number"),
        Column("created", "New", "state"),
        Column("session_id", "Session"),
    ),
    more=("due", "updated", "outcome"),
    id_path="key",
)
SAID = OutputSchema(
    (
        Column("chunk_id", "Chunk", "id"),
        Column("content_size", "Characters", "number"),
        Column("created", "New", "state"),
        Column("session_id", "Session"),
    ),
    more=("extracted_items_processed", "memory_keys"),
    id_path="chunk_id",
)
ARTIFACT = OutputSchema(
    (
        Column("artifact_id", "ID", "id"),
        Column("name", "Name", "name"),
        Column("session_id", "Session", "plain"),
        Column("type", "Type", "plain"),
        Column("format", "Format", "plain"),
        Column("revision", "Revision", "number"),
        Column("updated_at", "Made", "time"),
        Column("session_title"),
        Column("task_id", "Task", "plain"),
        Column("created_by"),
        Column("created_at"),
        Column("total_characters"),
    ),
    more=("metadata", "truncated"),
    id_path="artifact_id",
    least_columns=3,
)
ARTIFACT_REVISION = OutputSchema(
    (
        Column("revision", "Revision", "number"),
        Column("name", "Name", "name"),
        Column("type", "Type", "plain"),
        Column("format", "Format", "plain"),
        Column("total_characters", "Characters", "number"),
        Column("updated_at", "Made", "time"),
        Column("created_by", "By", "plain"),
        Column("artifact_id"),
        Column("session_id"),
        Column("task_id"),
        Column("created_at"),
    ),
    more=("metadata", "truncated"),
    id_path="artifact_id",
)
ARTIFACT_IN_FULL = OutputSchema(
    (*ARTIFACT.columns, Column("content")), more=(*ARTIFACT.more, "encoding"), id_path="artifact_id"
)
EVENT = OutputSchema(
    (
        Column("at", "Time", "time"),
        Column("event", "Event", "name"),
        Column("status", "Status", "state"),
        Column("message", "Message", "text"),
        Column("source", "Source", "plain"),
        Column("delivery_id"),
        Column("data"),
        Column("cursor"),
    ),
    id_path="cursor",
)
DELIVERY = OutputSchema(
    (
        Column("delivery_id", "ID", "id"),
        Column("command", "Command", "name"),
        Column("status", "Status", "state"),
        Column("session_id", "Session", "plain"),
        Column("accepted_at", "Accepted", "time"),
        Column("source", "Source", "plain"),
        Column("decided_at"),
    ),
    more=("result", "error", "code", "reason", "conflicts", "last_conflict_at"),
    id_path="delivery_id",
)
RECEIPT = OutputSchema(
    (
        Column("delivery_id", "ID", "id"),
        Column("status", "Status", "state"),
        Column("command", "Command", "plain"),
        Column("session_id", "Session", "plain"),
        Column("message", "Message", "text"),
        Column("duplicate"),
        Column("status_url"),
        Column("data", "Data", "json"),
    ),
    more=("type", "now", "updates", "reason"),
    id_path="delivery_id",
)
DEAD_LETTER = OutputSchema(
    (
        Column("delivery_id", "ID", "id"),
        Column("command", "Command", "name"),
        Column("session_id", "Session", "plain"),
        Column("failed_at", "Failed", "time"),
        Column("reason", "Reason", "text"),
        Column("source", "Source", "plain"),
        Column("accepted_at"),
    ),
    more=("payload", "traceback"),
    id_path="delivery_id",
)
REFUSAL = OutputSchema(
    (
        Column("at", "Time", "time"),
        Column("cause", "Cause", "name"),
        Column("status", "Status", "number"),
        Column("method", "Method", "plain"),
        Column("path", "Path", "text"),
        Column("source", "Source", "plain"),
        Column("address", "Address", "plain"),
        Column("code", "Code", "plain"),
        Column("size"),
    ),
    id_path="id",
)
AGENT = OutputSchema(
    (
        Column("name", "Name", "id"),
        Column("type", "Type", "plain"),
        Column("online", "Online", "state"),
        Column("last_seen_at", "Seen", "time"),
        Column("holding", "Holds", "number"),
        Column("max_concurrent", "At most", "number"),
        Column("capabilities", "Capabilities", "plain"),
        Column("registered_at"),
    ),
    more=("holds",),
    id_path="name",
)
KEY = OutputSchema(
    (
        Column("key_id", "ID", "id"),
        Column("name", "Name", "name"),
        Column("scopes", "Scopes", "plain"),
        Column("sessions", "Sessions", "plain"),
        Column("created_at", "Made", "time"),
        Column("revoked_at", "Revoked", "time"),
        Column("created_by"),
        Column("revoked_by"),
    ),
    id_path="key_id",
)
NEW_KEY = OutputSchema((Column("key"), *KEY.columns), more=("url",), id_path="key_id")
PART = OutputSchema(
    (Column("part", "Part", "name"), Column("state", "State", "state"), Column("detail", "Detail", "text")),
    id_path="part",
)
IMPORTED = OutputSchema((Column("session_id", "ID", "id"), Column("created", "New", "state")))
