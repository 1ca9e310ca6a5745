"""The reads of the Postgres store, and the dispatch of read commands.

All functions run in the caller's transaction, so they see its writes. They change nothing, except that get_task records
that the task's state was seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from models.commands.definitions import ReadCommand, name_of
from sessions.postgres.documents.exports import export_session
from sessions.postgres.reads.artifacts import get_artifact, list_artifacts
from sessions.postgres.reads.events import last_positions, latest_events, read_events
from sessions.postgres.reads.markdown import export_markdown
from sessions.postgres.reads.memories import list_memories, retrieve_memory
from sessions.postgres.reads.read_scope import require_session, similar_sessions
from sessions.postgres.reads.recent_activity import recent_activity
from sessions.postgres.reads.resume_bundle import resume_bundle
from sessions.postgres.reads.search import search
from sessions.postgres.reads.sessions import get_session_summary, list_sessions
from sessions.postgres.reads.tasks import get_task, list_tasks
from sessions.postgres.reads.transcript import find_start, read_conversation
from sessions.postgres.tasks.task_updates import find_updates
from sessions.reads.read_commands import answer_list, answer_one
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import Page, ReadResult

__all__ = [
    "export_markdown",
    "export_session",
    "find_start",
    "find_updates",
    "last_positions",
    "latest_events",
    "page",
    "read",
    "read_events",
    "similar_sessions",
]

_ONE: dict[str, Callable[..., dict[str, Any]]] = {
    "get_session_summary": get_session_summary,
    "retrieve_memory": retrieve_memory,
    "get_task": get_task,
    "get_artifact": get_artifact,
    "resume_bundle": resume_bundle,
}
_LISTS: dict[str, Callable[..., Page]] = {
    "list_sessions": list_sessions,
    "read_conversation": read_conversation,
    "query_memories": list_memories,
    "list_memories": list_memories,
    "list_tasks": list_tasks,
    "list_artifacts": list_artifacts,
    "search": search,
    "recent_activity": recent_activity,
}


def read(connection: Connection, command: ReadCommand, read_scope: ReadScope) -> ReadResult:
    """Run a read command; returns its data and a message. Marks a task as seen by the source, if given. Raises
    Forbidden, NotFound or Invalid."""
    title = _require_visible(connection, read_scope)
    name = name_of(command)
    if name in _ONE:
        return answer_one(command, _ONE[name](connection, command, read_scope=read_scope))
    return answer_list(command, _LISTS[name](connection, command, read_scope=read_scope), title=title)


def page(connection: Connection, command: ReadCommand, read_scope: ReadScope) -> Page:
    """Return a page of a list command. Raises Forbidden, NotFound or Invalid."""
    _require_visible(connection, read_scope)
    return _LISTS[name_of(command)](connection, command, read_scope=read_scope)


def _require_visible(connection: Connection, read_scope: ReadScope) -> str | None:
    """Return the title of the session, if the read is of one. Raises Forbidden or NotFound."""
    if read_scope.session_id is None:
        return None
    return require_session(connection, read_scope.session_id, read_scope.session_glob)
