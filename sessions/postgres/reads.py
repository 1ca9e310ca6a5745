"""Everything that can be read from the store in Postgres, and how a read command is answered.

All functions read within the caller's transaction, so they see what it wrote. They change nothing, but for get_task,
which notes that a task's state was shown.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection

from models.commands import (
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
from sessions.answers import Answer, Page
from sessions.postgres.artifact_reads import get_artifact, list_artifacts
from sessions.postgres.bundle import resume_bundle
from sessions.postgres.export import export_session
from sessions.postgres.journal import read_events
from sessions.postgres.markdown import export_markdown
from sessions.postgres.memory_reads import list_memories, retrieve_memory
from sessions.postgres.reach import Reach, require_session, similar_ids
from sessions.postgres.search import search
from sessions.postgres.session_reads import get_session_summary, list_sessions
from sessions.postgres.task_reads import get_task, list_tasks
from sessions.postgres.task_updates import session_updates
from sessions.postgres.transcript import read_transcript
from sessions.sentences import found, named, of_bundle, of_session, of_task, quoted

__all__ = [
    "export_markdown",
    "export_session",
    "page",
    "read",
    "read_events",
    "read_transcript",
    "session_updates",
    "similar_ids",
]

_LISTS: dict[type[ReadCommand], tuple[str, str, Callable[..., Page]]] = {
    ListSessions: ("sessions", "session", list_sessions),
    QueryMemories: ("memories", "memory", list_memories),
    ListMemories: ("memories", "memory", list_memories),
    ListTasks: ("tasks", "task", list_tasks),
    ListArtifacts: ("artifacts", "artifact", list_artifacts),
    Search: ("hits", "hit", search),
}
"""The field of the answer, what one of them is called, and who reads them."""


def read(
    connection: Connection,
    command: ReadCommand,
    *,
    session_id: str | None,
    session_glob: str | None,
    now: datetime,
) -> Answer:
    """The answer to a read command: its data, and a sentence on it. Raises Forbidden, NotFound or Invalid."""
    reach = Reach(session_id=session_id, session_glob=session_glob, now=now)
    title = None if session_id is None else require_session(connection, session_id, session_glob)
    match command:
        case GetSessionSummary():
            data = get_session_summary(connection, command, reach=reach)
            return Answer(data=data, message=of_session(data))
        case RetrieveMemory():
            memory = retrieve_memory(connection, command, reach=reach)
            return Answer(
                data={"memory": memory}, message=f"Here is the {named(memory['type'])} {quoted(command.key)}."
            )
        case GetTask():
            task = get_task(connection, command, reach=reach)
            return Answer(data={"task": task}, message=of_task(task))
        case GetArtifact():
            artifact = get_artifact(connection, command, reach=reach)
            return Answer(data={"artifact": artifact}, message=f"Here is {quoted(artifact['name'])}.")
        case ResumeBundle():
            bundle = resume_bundle(connection, command, reach=reach)
            return Answer(data=bundle, message=of_bundle(bundle))
    return _answer_list(connection, command, reach=reach, title=title)


def page(
    connection: Connection,
    command: ReadCommand,
    *,
    session_id: str | None,
    session_glob: str | None,
    now: datetime,
) -> Page:
    """Part of a list, for a command that lists. Raises Forbidden, NotFound or Invalid."""
    if session_id is not None:
        require_session(connection, session_id, session_glob)
    reach = Reach(session_id=session_id, session_glob=session_glob, now=now)
    return _LISTS[type(command)][2](connection, command, reach=reach)


def _answer_list(connection: Connection, command: ReadCommand, *, reach: Reach, title: str | None) -> Answer:
    field, noun, read_list = _LISTS[type(command)]
    result = read_list(connection, command, reach=reach)
    data = {field: result.items, "count": len(result.items), "next_cursor": result.next_cursor}
    if result.truncated:
        data["truncated"] = True
    if isinstance(command, Search):
        data["match"] = result.items[0]["match"] if result.items else "all"
        noun = "hit" if data["match"] == "all" else "hit for some of the words"
    if isinstance(command, QueryMemories) and command.type is not None:
        noun = command.type
    where = None if isinstance(command, ListSessions) else "all sessions" if title is None else quoted(title)
    return Answer(data=data, message=found(len(result.items), noun, where=where, more=result.next_cursor is not None))
