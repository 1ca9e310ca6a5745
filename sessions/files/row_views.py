"""Presents the contents of a session's file as named columns for `sessions.reads.serializers`."""

from __future__ import annotations

from typing import Any

import msgspec

from models.field_types import UNFINISHED
from sessions.documents.document import (
    ArtifactItem,
    ChunkItem,
    EventItem,
    Item,
    MemoryItem,
    RevisionItem,
    SessionItem,
    TaskItem,
)
from sessions.files.session_file import SessionFile, SessionOutline
from sessions.reads.partial_values import json_columns, text_columns
from sessions.reads.serializers import TASK_TIMES
from sessions.rules.records import Question

_PLAIN_TASK = (
    *("task_id", "agent_name", "task_type", "title", "priority", "depends_on"),
    *("status", "attempt", "max_attempts", "claimed_by", "created_by", *TASK_TIMES),
)


def session_columns(session: SessionItem, counts: dict[str, int], *, room: int) -> dict[str, Any]:
    """Return the columns of a session, with its counts."""
    plain = _fields(session, *(name for name in session.__struct_fields__ if name != "context"))
    return plain | counts | text_columns(session.context, "context", room=room)


def count_outline(outline: SessionOutline) -> dict[str, int]:
    """Count the items in a session's outline."""
    return {
        "conversation_chunks": len(outline.chunks),
        "memories": len(outline.memories),
        "tasks": len(outline.tasks),
        "artifacts": len(outline.artifacts),
        "active_tasks": sum(task.status in UNFINISHED for task in outline.tasks),
    }


def count_contents(contents: SessionFile) -> dict[str, int]:
    """Count the items in a session."""
    return {
        "conversation_chunks": len(contents.chunks),
        "memories": len(contents.memories),
        "tasks": len(contents.tasks),
        "artifacts": len(contents.artifacts),
        "active_tasks": sum(task.status in UNFINISHED for task in contents.tasks.values()),
    }


def chunk_columns(contents: SessionFile, chunk: ChunkItem, *, room: int, offset: int) -> dict[str, Any]:
    """Return the columns of a piece of conversation."""
    plain = ("chunk_id", "format", "start_at", "end_at", "participants", "created_by", "created_at")
    return {
        **_fields(chunk, *plain),
        "said_at": chunk.said_at,
        "position": contents.positions["chunks"][chunk.chunk_id],
        "offset": offset,
        **text_columns(chunk.content, "content", room=room, offset=offset),
        **json_columns(chunk.metadata, "metadata", room=room),
    }


def memory_columns(
    contents: SessionFile, memory: MemoryItem | RevisionItem, *, room: int, offset: int = 0
) -> dict[str, Any]:
    """Return the columns of a memory at one revision."""
    plain = ("key", "revision", "type", "tags", "status", "due", "chunk_id", "created_at", "updated_at")
    content = json_columns(memory.content, "content", room=room, offset=offset)
    return _fields(memory, *plain) | _session(contents) | content


def task_columns(contents: SessionFile, task: TaskItem, *, room: int, offset: int = 0) -> dict[str, Any]:
    """Return the columns of a task in lists."""
    return {
        **_fields(task, *_PLAIN_TASK),
        **_session(contents),
        "position": contents.positions["tasks"][task.task_id],
        "blocked_by": _blocked_by(contents, task) or None,
        **text_columns(task.description, "description", room=room, offset=offset),
        **text_columns(last_question(task), "question", room=room),
        **text_columns(task.error, "error", room=room),
        **text_columns(task.cancel_reason, "cancel_reason", room=room),
        **json_columns(task.progress, "progress", room=room),
    }


def whole_task_columns(contents: SessionFile, task: TaskItem, *, room: int, offset: int) -> dict[str, Any]:
    """Return the columns of a complete task."""
    return {
        **task_columns(contents, task, room=room, offset=offset),
        **json_columns(task.output, "output", room=room, offset=offset),
        **json_columns(task.input_data, "input_data", room=room),
        **json_columns(task.questions, "questions", room=room),
    }


def artifact_columns(contents: SessionFile, artifact: ArtifactItem, *, room: int) -> dict[str, Any]:
    """Return the columns of an artifact at one revision, without its content."""
    plain = ("artifact_id", "revision", "name", "type", "format", "task_id", "created_by", "created_at")
    return {
        **_fields(artifact, *plain),
        **_session(contents),
        "updated_at": artifact.updated_at,
        **json_columns(artifact.metadata, "metadata", room=room),
    }


def activity_columns(contents: SessionFile, item: Item, *, room: int) -> dict[str, Any]:
    """Return the columns of a session or something in it, as recent activity."""
    title = contents.session.title if contents.session else ""
    columns: dict[str, Any] = {"session_title": title}
    match item:
        case SessionItem():
            columns |= _fields(item, "status", "created_at") | text_columns(item.context, "context", room=room)
        case ChunkItem():
            columns |= chunk_columns(contents, item, room=room, offset=0)
        case MemoryItem():
            columns |= memory_columns(contents, item, room=room)
        case TaskItem():
            columns |= whole_task_columns(contents, item, room=room, offset=0)
        case ArtifactItem():
            content = json_columns(item.content, "content", room=room)
            columns |= artifact_columns(contents, item, room=room) | content
    return columns


def event_columns(event: EventItem, *, number: int, room: int) -> dict[str, Any]:
    """Return the columns of an event, the `number`-th ever recorded for its session_id."""
    plain = ("event", "status", "delivery_id", "source", "message", "created_at")
    return {**_fields(event, *plain), "event_id": number, **json_columns(event.data, "data", room=room)}


def last_question(task: TaskItem) -> str | None:
    """Return the agent's last question, which is open while the task is input_required."""
    questions = msgspec.json.decode(task.questions, type=list[Question])
    return questions[-1].question if questions else None


def _blocked_by(contents: SessionFile, task: TaskItem) -> list[dict[str, str]]:
    if task.finished_at is not None or not task.depends_on:
        return []
    needed = set(task.depends_on)
    return [
        {"task_id": other.task_id, "status": other.status}
        for other in contents.tasks.values()
        if other.task_id in needed and other.status != "completed"
    ]


def _session(contents: SessionFile) -> dict[str, Any]:
    title = contents.session.title if contents.session else ""
    return {"session_id": contents.session_id, "session_title": title}


def _fields(item: msgspec.Struct, *names: str) -> dict[str, Any]:
    return {name: getattr(item, name) for name in names}
