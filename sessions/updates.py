"""What those who work in a session are told of its tasks, since they cannot be called: what finished, asks, or is left
lying."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec

from models.inbox import Entry
from models.responses import shorten
from models.timestamps import format_utc

AT_MOST = 5
"""For each session, the latest: they come with every answer until get_task has shown them."""
UNCLAIMED_AFTER = timedelta(minutes=10)
TITLE_LENGTH = 80
BUNDLE = "resume_bundle"
EXCERPT_LENGTH = 300
"""Characters of a question or an error; get_task shows it whole."""


def describe_update(
    *,
    task_id: str,
    status: str,
    agent_name: str | None,
    title: str,
    question: str | None,
    error: str | None,
    updated_at: datetime,
) -> dict[str, Any]:
    """The news of one task; texts may be longer than what is shown of them."""
    title = shorten(title, TITLE_LENGTH)
    whom = f" by {agent_name}" if agent_name else ""
    message = {
        "completed": f'"{title}" is completed.',
        "failed": f'"{title}" failed.',
        "input_required": f'"{title}" waits for an answer to a question.',
        "pending": f'"{title}" was not yet claimed{whom}.',
    }[status]
    update = {"task_id": task_id, "status": status, "message": message, "at": format_utc(updated_at)}
    if status == "input_required" and question:
        update["question"] = shorten(question, EXCERPT_LENGTH)
    if status == "failed" and error:
        update["error"] = shorten(error, EXCERPT_LENGTH)
    return update


class _Session(msgspec.Struct, frozen=True):
    session_id: str | None = None


class _Bundle(msgspec.Struct, frozen=True):
    session: _Session = _Session()


class _Answer(msgspec.Struct, frozen=True):
    data: _Bundle = _Bundle()


def session_told_of(entry: Entry, response: bytes) -> str | None:
    """The session that an answer is about: the sender's, or the one that a bundle was made of without one."""
    if entry.session_id is not None or entry.command != BUNDLE:
        return entry.session_id
    return msgspec.json.decode(response, type=_Answer).data.session.session_id
