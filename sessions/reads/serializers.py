"""Serializes sessions and their records for reads, for all stores.

A store supplies columns by name, long ones as in `sessions.reads.partial_values`; texts are cut to fit afterwards.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from models.commands.responses import make_title
from models.timestamps import format_utc
from sessions.reads.partial_values import Columns, long_text
from sessions.reads.truncation import LongText, cut, fit, measure
from sessions.rules.lifecycle import describe_session
from sessions.rules.records import Session, Stats, shown_status

TASK_TIMES = ("not_before", "claimed_at", "lease_expires_at", "created_at", "updated_at", "finished_at")


def session_item(columns: Columns) -> dict[str, Any]:
    """The summary of a session, the same in all reads."""
    stats = Stats(**{name: columns[name] for name in Stats.__struct_fields__})
    fields = {name: columns[name] for name in Session.__struct_fields__ if name != "context"}
    context = long_text(columns, "context") or LongText(text="", length=0)
    return describe_session(Session(**fields, context=""), stats) | {"context": context}


def chunk_item(columns: Columns, *, offset: int = 0) -> dict[str, Any]:
    """A chunk; from an offset on, its content with time and speakers."""
    item = {
        "chunk_id": columns["chunk_id"],
        "content": long_text(columns, "content", offset=offset, paged=True),
        "offset": offset or None,
        "total_characters": columns["content_length"],
        "said_at": _time(columns["said_at"]),
        "participants": columns["participants"],
    }
    if offset:
        return _without_empty(item)
    item |= {
        "format": columns["format"],
        "start_at": _time(columns["start_at"]),
        "end_at": _time(columns["end_at"]),
        "metadata": long_text(columns, "metadata"),
        "created_by": columns["created_by"],
        "created_at": _time(columns["created_at"]),
    }
    return _without_empty(item)


def last_words(columns: Columns, room: int) -> dict[str, Any]:
    """A chunk with the end of its content, where the conversation continues. The column `content` has as much of it as
    could be shown; `length` is that of the whole content."""
    times = {name: _time(columns[name]) for name in ("start_at", "created_at") if columns[name]}
    item = {"chunk_id": columns["chunk_id"], **times, "content": ""}
    content = cut(columns["content"], room - measure(item | {"truncated": True}), from_end=True)
    return item | {"content": content} | ({"truncated": True} if len(content) < columns["length"] else {})


def memory_item(columns: Columns, *, offset: int = 0, titled: bool = False) -> dict[str, Any]:
    """A memory as all reads show it; with its session's title in lists over several sessions."""
    item = {
        "key": columns["key"],
        "type": columns["type"],
        "content": long_text(columns, "content", offset=offset, paged=True),
        "tags": columns["tags"],
        "status": shown_status(columns["type"], columns["status"]),
        "due": columns["due"],
        "revision": columns["revision"],
        "session_id": columns["session_id"],
        "session_title": columns["session_title"] if titled else None,
        "chunk_id": columns["chunk_id"],
        "created_at": _time(columns["created_at"]),
        "updated_at": _time(columns["updated_at"]),
    }
    return {name: value for name, value in item.items() if value is not None}


def task_item(columns: Columns, *, titled: bool = False, main: str = "") -> dict[str, Any]:
    """A task as all reads show it. `main` is the text that get_task can continue; lists have none."""
    asks = columns["status"] == "input_required"
    item = {
        "task_id": columns["task_id"],
        "title": columns["title"] or make_title(columns["description_text"]),
        "session_id": columns["session_id"],
        "session_title": columns["session_title"] if titled else None,
        "agent_name": columns["agent_name"],
        "task_type": columns["task_type"],
        "description": long_text(columns, "description", paged=main == "description"),
        "priority": columns["priority"],
        "status": columns["status"],
        "question": long_text(columns, "question") if asks else None,
        "error": long_text(columns, "error"),
        "progress": long_text(columns, "progress"),
        "attempt": columns["attempt"],
        "max_attempts": columns["max_attempts"],
        "depends_on": columns["depends_on"] or None,
        "blocked_by": columns["blocked_by"],
        "cancel_reason": long_text(columns, "cancel_reason"),
        # On a requeued task this names the previous holder.
        "claimed_by": columns["claimed_by"] if columns["status"] != "pending" else None,
        "created_by": columns["created_by"],
        **{name: _time(columns[name]) for name in TASK_TIMES},
    }
    return _without_empty(item)


def whole_task(columns: Columns, *, offset: int, room: int) -> dict[str, Any]:
    """A task with all its fields; with `offset`, only the text that is continued: the output if there is one, else the
    description."""
    main = "description" if columns["output_length"] is None else "output"
    if offset:
        part = {name: columns[name] for name in ("session_id", "task_id", "status")}
        return fit(part | {main: long_text(columns, main, offset=offset, paged=True)}, room)
    item = task_item(columns, main=main)
    item["input_data"] = long_text(columns, "input_data")
    item["output"] = long_text(columns, "output", paged=True)
    item["questions"] = long_text(columns, "questions")
    return fit(_without_empty(item), room)


def artifact_item(columns: Columns, *, titled: bool = False) -> dict[str, Any]:
    """An artifact as all reads show it, without its content."""
    item = {
        "artifact_id": columns["artifact_id"],
        "session_id": columns["session_id"],
        "session_title": columns["session_title"] if titled else None,
        "name": columns["name"],
        "type": columns["type"],
        "format": columns["format"],
        "task_id": columns["task_id"],
        "metadata": long_text(columns, "metadata"),
        "revision": columns["revision"],
        "created_by": columns["created_by"],
        "created_at": _time(columns["created_at"]),
        "updated_at": _time(columns["updated_at"]),
    }
    return _without_empty(item)


def artifact_revision_item(columns: Columns) -> dict[str, Any]:
    """An artifact at one revision, without its content, but with the length of that."""
    return artifact_item(columns) | {"total_characters": columns["content_length"]}


def whole_artifact(columns: Columns, *, offset: int, room: int) -> dict[str, Any]:
    """An artifact with its content; with `offset`, only the content from there on."""
    content = long_text(columns, "content", offset=offset, paged=True)
    item = artifact_revision_item(columns) | {"content": content}
    if offset:
        names = ("artifact_id", "session_id", "name", "revision", "total_characters", "content")
        item = {name: item[name] for name in names}
    return fit(item, room)


def event_item(columns: Columns) -> dict[str, Any]:
    """A journal entry."""
    return {
        "cursor": str(columns["event_id"]),
        **{name: columns[name] for name in ("event", "status", "delivery_id", "source")},
        "at": _time(columns["created_at"]),
        "message": columns["message"],
        "data": long_text(columns, "data"),
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else format_utc(moment)


def _without_empty(item: dict[str, Any]) -> dict[str, Any]:
    empty = [name for name, value in item.items() if value is None or (isinstance(value, LongText) and value.is_empty)]
    return {name: value for name, value in item.items() if name not in empty}
