"""The reads of the Postgres store, and the dispatch of read commands.

All functions run in the caller's transaction, so they see its writes. They change nothing, except that get_task records
that the task's state was seen.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from models.commands.definitions import (
    GetArtifact,
    GetSessionSummary,
    GetTask,
    ListArtifacts,
    ListMemories,
    ListSessions,
    ListTasks,
    QueryMemories,
    ReadCommand,
    ResumeBundle,
    RetrieveMemory,
    Search,
)
from sessions.postgres.documents.exports import export_session
from sessions.postgres.reads.artifacts import get_artifact, list_artifacts
from sessions.postgres.reads.events import last_positions, read_events
from sessions.postgres.reads.markdown import export_markdown
from sessions.postgres.reads.memories import list_memories, retrieve_memory
from sessions.postgres.reads.read_scope import ReadScope, require_session, similar_ids
from sessions.postgres.reads.resume_bundle import resume_bundle
from sessions.postgres.reads.search import search
from sessions.postgres.reads.sessions import get_session_summary, list_sessions
from sessions.postgres.reads.tasks import get_task, list_tasks
from sessions.postgres.reads.transcript import read_transcript
from sessions.postgres.tasks.task_updates import find_updates
from sessions.reads.read_commands import answer_list, answer_one
from sessions.reads.results import Page, ReadResult

__all__ = [
    "export_markdown",
    "export_session",
    "find_updates",
    "last_positions",
    "page",
    "read",
    "read_events",
    "read_transcript",
    "similar_ids",
]

_ONE: dict[type[ReadCommand], Callable[..., dict[str, Any]]] = {
    GetSessionSummary: get_session_summary,
    RetrieveMemory: retrieve_memory,
    GetTask: get_task,
    GetArtifact: get_artifact,
    ResumeBundle: resume_bundle,
}
_LISTS: dict[type[ReadCommand], Callable[..., Page]] = {
    ListSessions: list_sessions,
    QueryMemories: list_memories,
    ListMemories: list_memories,
    ListTasks: list_tasks,
    ListArtifacts: list_artifacts,
    Search: search,
}


def read(
    connection: Connection,
    command: ReadCommand,
    *,
    session_id: str | None,
    session_glob: str | None,
    now: datetime,
    source: str | None = None,
) -> ReadResult:
    """Run a read command; returns its data and a message. Marks a task as seen by the source, if given. Raises
    Forbidden, NotFound or Invalid."""
    read_scope = ReadScope(session_id=session_id, session_glob=session_glob, now=now, source=source)
    title = None if session_id is None else require_session(connection, session_id, session_glob)
    if type(command) in _ONE:
        return answer_one(command, _ONE[type(command)](connection, command, read_scope=read_scope))
    return answer_list(command, _LISTS[type(command)](connection, command, read_scope=read_scope), title=title)


def page(
    connection: Connection,
    command: ReadCommand,
    *,
    session_id: str | None,
    session_glob: str | None,
    now: datetime,
) -> Page:
    """Return a page of a list command. Raises Forbidden, NotFound or Invalid."""
    if session_id is not None:
        require_session(connection, session_id, session_glob)
    read_scope = ReadScope(session_id=session_id, session_glob=session_glob, now=now)
    return _LISTS[type(command)](connection, command, read_scope=read_scope)
