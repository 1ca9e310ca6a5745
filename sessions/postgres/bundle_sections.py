"""The sections of a resume bundle: which rows each is made of, the most useful first, and how it shows one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Row, Select, func, select

from models.tables import ArtifactRow, ChunkRow, MemoryRow, TaskRow
from models.timestamps import format_utc
from sessions.postgres.artifact_reads import artifact_columns, artifact_item
from sessions.postgres.excerpts import json_excerpt, long_text
from sessions.postgres.memory_reads import memory_columns, memory_item
from sessions.postgres.task_reads import task_columns, task_item
from sessions.postgres.text_budget import cut, fit, measure

MOST_ITEMS = 100
"""Of each section."""
HEAD_CHARACTERS = 500
"""Of an artifact: enough to tell what it is."""

_TOTAL = func.count().over().label("total")
_KNOWN = ("session_id", "revision", "created_at", "created_by", "metadata")
"""Fields that a bundle can do without."""


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """One list of the bundle."""

    name: str
    share: float
    """Of the room that the sections before left over."""
    select: Callable[[str, int], Select[Any]]
    """For a session and the characters that one text may have; each row has the `total` that there are."""
    item: Callable[[Row[Any], int], dict[str, Any]]
    """A row, cut to the characters that are left."""


def _memories(session_id: str, room: int, *, types: Sequence[str], statuses: Sequence[str]) -> Select[Any]:
    return (
        select(*memory_columns(MemoryRow, room=room), _TOTAL)
        .where(MemoryRow.session_id == session_id, MemoryRow.type.in_(types), MemoryRow.status.in_(statuses))
        .order_by(MemoryRow.updated_at.desc(), MemoryRow.key.desc())
    )


def _tasks(session_id: str, room: int) -> Select[Any]:
    unfinished = (TaskRow.session_id == session_id, TaskRow.finished_at.is_(None))
    return select(*task_columns(room), _TOTAL).where(*unfinished).order_by(TaskRow.priority.desc(), TaskRow.position)


def _artifacts(session_id: str, room: int) -> Select[Any]:
    content = json_excerpt(ArtifactRow.content, "content", room=HEAD_CHARACTERS)
    statement = select(*artifact_columns(room), *content, _TOTAL).where(ArtifactRow.session_id == session_id)
    return statement.order_by(ArtifactRow.position.desc())


def _chunks(session_id: str, room: int) -> Select[Any]:
    content = func.right(ChunkRow.content, room).label("content")
    length = func.char_length(ChunkRow.content).label("length")
    statement = select(ChunkRow.chunk_id, ChunkRow.created_at, content, length, _TOTAL)
    return statement.where(ChunkRow.session_id == session_id).order_by(ChunkRow.position.desc())


def _half(item: dict[str, Any], room: int) -> dict[str, Any]:
    return fit({name: value for name, value in item.items() if name not in _KNOWN}, room // 2)


def _memory(row: Row[Any], room: int) -> dict[str, Any]:
    return _half(memory_item(row), room)


def _task(row: Row[Any], room: int) -> dict[str, Any]:
    return _half(task_item(row), room)


def _artifact(row: Row[Any], room: int) -> dict[str, Any]:
    return _half(artifact_item(row) | {"content": long_text(row, "content", paged=True)}, room)


def _chunk(row: Row[Any], room: int) -> dict[str, Any]:
    """With the end of its content, which is where the conversation goes on."""
    item = {"chunk_id": row.chunk_id, "created_at": format_utc(row.created_at), "content": ""}
    content = cut(row.content, room - measure(item | {"truncated": True}), from_end=True)
    return item | {"content": content} | ({"truncated": True} if len(content) < row.length else {})


def _of_types(name: str, share: float, types: Sequence[str], statuses: Sequence[str]) -> Section:
    return Section(name=name, share=share, select=partial(_memories, types=types, statuses=statuses), item=_memory)


_OTHER_TYPES = ("context", "preference", "fact", "risk", "idea", "note", "general")

SECTIONS = (
    _of_types("open_questions", 0.15, ["question"], ["open"]),
    _of_types("action_items", 0.2, ["action_item"], ["open"]),
    _of_types("decisions", 0.25, ["decision"], ["open", "done"]),
    Section(name="tasks", share=0.25, select=_tasks, item=_task),
    _of_types("other_memories", 0.25, _OTHER_TYPES, ["open", "done"]),
    Section(name="artifacts", share=0.2, select=_artifacts, item=_artifact),
    Section(name="conversation", share=1.0, select=_chunks, item=_chunk),
)
