"""Updates on tasks for sources that work in a session, since they cannot be called: finished, asking and unclaimed
tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from models.access.scopes import allows
from models.access.session_glob import matches_glob
from models.commands.responses import MESSAGE_LENGTH, make_title, shorten
from models.field_types import TaskStatus
from models.queue.inbox import Entry
from models.timestamps import format_utc

SETTLED: tuple[TaskStatus, ...] = ("completed", "failed", "input_required")
"""Statuses that are news at once; a pending task is news once it is unclaimed for UNCLAIMED_AFTER."""
AT_MOST = 5
"""Per session: tasks that the source has not seen, then those that it has, latest first."""
UNCLAIMED_AFTER = timedelta(minutes=10)
SEEN_FOR = timedelta(days=1)
"""Time after its last change for which a task is reported again, marked, to a source that has seen it: several chats
may share a key, and only one of them has informed its user."""
SHOWN_FOR = timedelta(days=7)
"""Time after its last change for which a task that some source has seen is news for the others."""
LOOKED_AT = 100
"""Tasks of a session, seen by some source, that are examined, the latest."""
SOURCES_KEPT = 32
"""Sources recorded as having seen a task, the latest."""
ELSEWHERE_FOR = timedelta(days=1)
ELSEWHERE_TASKS = 200
"""Tasks of a source that are examined, the latest."""
ELSEWHERE_SESSIONS = 3
"""Sessions that are named."""
ELSEWHERE_TITLE_LENGTH = 40
BUNDLE = "resume_bundle"
EXCERPT_LENGTH = 300
"""Characters of a question or an error; get_task returns all of it."""


def describe_update(
    *,
    task_id: str,
    status: str,
    agent_name: str | None,
    titled: str,
    question: str | None,
    error: str | None,
    updated_at: datetime,
    seen: bool,
) -> dict[str, Any]:
    """The update on one task; texts may be longer than they are shown."""
    title = make_title(titled)
    by = f" by {agent_name}" if agent_name else ""
    message = {
        "completed": f'"{title}" is completed.',
        "failed": f'"{title}" failed.',
        "input_required": f'"{title}" is waiting for an answer to a question.',
        "pending": f'"{title}" has not been claimed{by} yet.',
    }[status]
    update: dict[str, Any] = {"task_id": task_id, "status": status, "message": message, "at": format_utc(updated_at)}
    if status == "input_required" and question:
        update["question"] = shorten(question, EXCERPT_LENGTH)
    if status == "failed" and error:
        update["error"] = shorten(error, EXCERPT_LENGTH)
    if seen:
        update["seen"] = True
    return update


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """The recipient of task updates in a response about a session."""

    session_id: str
    source: str
    session_glob: str | None = None
    may_read: bool = True


class TaskUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """A task that may be reported to a listener."""

    task_id: str
    updated_at: datetime
    position: int
    seen: bool


class Elsewhere(msgspec.Struct, frozen=True, kw_only=True):
    """The number of tasks that a source delegated in a session and that have unseen news of one kind."""

    session_id: str
    title: str
    status: str
    count: int
    updated_at: datetime


def choose(news: Iterable[TaskUpdate]) -> list[TaskUpdate]:
    """The updates to report, in order."""
    latest = sorted(news, key=lambda item: (item.updated_at, item.position), reverse=True)
    return sorted(latest, key=lambda item: item.seen)[:AT_MOST]


def is_shown(shown_at: datetime | None, updated_at: datetime) -> bool:
    """Check whether some source has seen the task in its current state; then it is known which."""
    return shown_at is not None and shown_at >= updated_at


def seen_after(
    seen_by: Sequence[str], source: str, *, shown_at: datetime | None, updated_at: datetime
) -> list[str] | None:
    """The sources that have seen a task once it is shown to this source; None if that changes nothing."""
    if not is_shown(shown_at, updated_at):
        return [source]
    return None if source in seen_by else [*seen_by, source][-SOURCES_KEPT:]


def describe_elsewhere(found: Iterable[Elsewhere], listener: Listener) -> list[dict[str, Any]]:
    """One line for the tasks that the listener's source delegated in other sessions that it may see; an empty list
    without any."""
    sessions: dict[str, list[Elsewhere]] = {}
    for item in sorted(found, key=lambda item: item.updated_at, reverse=True):
        if item.session_id != listener.session_id and matches_glob(item.session_id, listener.session_glob):
            sessions.setdefault(item.session_id, []).append(item)
    if not sessions or not listener.may_read:
        return []
    for number in range(ELSEWHERE_SESSIONS, 0, -1):
        named = list(sessions)[:number]
        parts = [_describe_session(sessions[session_id]) for session_id in named]
        if rest := sum(item.count for items in list(sessions.values())[number:] for item in items):
            parts.append(f"{rest} more")
        first, _, others = ", ".join(parts[:-1] or parts).partition(" ")
        noun = "task" if first == "1" else "tasks"
        message = f"{first} {noun} {others}" + (f" and {parts[-1]}." if parts[1:] else ".")
        if len(message) <= MESSAGE_LENGTH:
            break
    return [{"status": "elsewhere", "message": message, "session_ids": named}]


def _describe_session(items: Sequence[Elsewhere]) -> str:
    verbs = {"input_required": ("asks", "ask"), "failed": ("failed", "failed"), "completed": ("finished", "finished")}
    counts = {item.status: item.count for item in items}
    parts = [f"{counts[status]} {verbs[status][counts[status] > 1]}" for status in verbs if status in counts]
    return f'{" and ".join(parts)} in "{shorten(items[0].title, ELSEWHERE_TITLE_LENGTH)}"'


class _SessionUpdates(msgspec.Struct, frozen=True):
    session_id: str | None = None


class _Bundle(msgspec.Struct, frozen=True):
    session: _SessionUpdates = _SessionUpdates()


class _UpdatedResponse(msgspec.Struct, frozen=True):
    data: _Bundle = _Bundle()


def listener_of(entry: Entry, response: bytes) -> Listener | None:
    """The recipient of updates in the response, if it is about a session: that of the sender's session, or of the
    session that a bundle without a session_id was made of."""
    session_id = entry.session_id
    if session_id is None and entry.command == BUNDLE:
        session_id = msgspec.json.decode(response, type=_UpdatedResponse).data.session.session_id
    if session_id is None:
        return None
    return Listener(
        session_id=session_id,
        source=entry.source,
        session_glob=entry.session_glob,
        may_read=allows(entry.scopes, "read"),
    )
