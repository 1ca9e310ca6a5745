"""Builds the result of a read command from the data that a store found: the data and a sentence. Pure."""

from __future__ import annotations

from typing import Any

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
    ReadConversation,
    RecentActivity,
    RetrieveMemory,
    Search,
)
from models.commands.responses import type_name
from sessions.reads.messages import found, found_nothing, of_bundle, of_session, of_task, quoted
from sessions.reads.results import Page, ReadResult

LISTS: dict[type[ReadCommand], tuple[str, str]] = {
    ListSessions: ("sessions", "session"),
    ReadConversation: ("chunks", "chunk"),
    QueryMemories: ("memories", "memory"),
    ListMemories: ("memories", "memory"),
    ListTasks: ("tasks", "task"),
    ListArtifacts: ("artifacts", "artifact"),
    RecentActivity: ("activity", "event"),
    Search: ("hits", "hit"),
}
"""The list commands: the field of the result, and the noun for one item."""

NOUNS_OF_HITS = {
    "all": "hit",
    "none": "hit",
    "partial": "hit for some of the words",
    "meaning": "hit with a possibly similar meaning, but without these words,",
}


def answer_one(command: ReadCommand, data: dict[str, Any]) -> ReadResult:
    """The result of a command that reads one record."""
    match command:
        case GetSessionSummary():
            return ReadResult(data=data, message=of_session(data))
        case RetrieveMemory():
            return ReadResult(
                data={"memory": data}, message=f"Here is the {type_name(data['type'])} {quoted(command.key)}."
            )
        case GetTask():
            return ReadResult(data={"task": data}, message=of_task(data))
        case GetArtifact():
            return ReadResult(data={"artifact": data}, message=f"Here is {quoted(data['name'])}.")
    return ReadResult(data=data, message=of_bundle(data))


def answer_list(command: ReadCommand, page: Page, *, title: str | None) -> ReadResult:
    """The result of a list command; `title` is that of the requested session, if any."""
    field, noun = LISTS[type(command)]
    data: dict[str, Any] = {field: page.items, "count": len(page.items), "next_cursor": page.next_cursor}
    data |= page.notes
    if page.truncated:
        data["truncated"] = True
    if isinstance(command, Search):
        data["match"] = page.items[0]["match"] if page.items else "none"
        noun = NOUNS_OF_HITS[data["match"]]
    if isinstance(command, ListArtifacts) and command.artifact_id is not None:
        noun = "revision"
    if isinstance(command, QueryMemories) and command.type is not None:
        noun = command.type
    everywhere = "all sessions"
    if isinstance(command, QueryMemories) and not command.include_completed:
        everywhere = "all sessions that are not completed"
    place = everywhere if title is None else quoted(title)
    if isinstance(command, Search) and not page.items and command.cursor is None:
        by_meaning = page.notes.get("method") == "hybrid"
        message = found_nothing(where=place, is_incomplete=page.is_incomplete, by_meaning=by_meaning)
        return ReadResult(data=data, message=message)
    where = None if isinstance(command, ListSessions) else place
    return ReadResult(data=data, message=found(len(page.items), noun, where=where, more=page.next_cursor is not None))
