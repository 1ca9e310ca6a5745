"""Reads of the JSON store, with the same filters, order and pages as in Postgres."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from models import field_types as v
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
    ResumeBundle,
    RetrieveMemory,
    Search,
)
from models.due import NEVER, is_due
from sessions.documents.document import MemoryItem, TaskItem
from sessions.files.row_views import (
    activity_columns,
    artifact_columns,
    chunk_columns,
    count_contents,
    event_columns,
    memory_columns,
    session_columns,
    task_columns,
    whole_task_columns,
)
from sessions.files.search import search
from sessions.files.session_file import SessionFile
from sessions.files.session_reader import SessionReader, not_in_session
from sessions.reads.pagination import RowPosition, decode_cursor, decode_position, fill
from sessions.reads.partial_values import Columns, json_columns
from sessions.reads.read_commands import answer_list, answer_one
from sessions.reads.read_scope import ReadScope
from sessions.reads.recent_activity import ID_NAMES, READ_LENGTH, Kind, page_of_activity, sources_of, wanted_of
from sessions.reads.recent_activity import Place as ActivityPlace
from sessions.reads.results import Page, ReadResult
from sessions.reads.resume_bundle import HEAD_CHARACTERS, MOST_ITEMS, Section, compose, none_active
from sessions.reads.serializers import (
    artifact_item,
    artifact_revision_item,
    event_item,
    memory_item,
    session_item,
    task_item,
    whole_artifact,
    whole_task,
)
from sessions.reads.session_names import has_words, words_of
from sessions.reads.transcript import Place, page_of_chunks
from sessions.reads.truncation import fit
from sessions.rules.records import shown_status

_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


class ItemPlace(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The end of a page in a list ordered by position. Positions may repeat across sessions."""

    position: RowPosition
    session_id: str


class TaskPlace(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The end of a page of tasks, among the unfinished (by priority) or the finished ones (by finished_at)."""

    position: RowPosition
    session_id: str
    priority: v.Priority | None = None
    finished_at: datetime | None = None


def read(reader: SessionReader, command: ReadCommand, *, read_scope: ReadScope) -> ReadResult:
    """Run a read command without changing anything; the caller of get_task marks the task as seen. Raises Forbidden,
    NotFound or Invalid."""
    if type(command) in _LISTS:
        contents = (
            None if read_scope.session_id is None else reader.require(read_scope.session_id, read_scope.session_glob)
        )
        title = contents.session.title if contents and contents.session else None
        return answer_list(command, _LISTS[type(command)](reader, command, read_scope), title=title)
    if read_scope.session_id is None:
        contents = _latest_active(reader, read_scope)
    else:
        contents = reader.require(read_scope.session_id, read_scope.session_glob)
    return answer_one(command, _ONE[type(command)](contents, command))


def page(reader: SessionReader, command: ReadCommand, *, read_scope: ReadScope) -> Page:
    """Return a page of a list command. Raises NotFound or Invalid."""
    return _LISTS[type(command)](reader, command, read_scope)


def read_events(contents: SessionFile, *, after: str | None, limit: int, max_characters: int) -> Page:
    """Return events in order. `next_cursor` is never None. Raises Invalid for an invalid position."""
    position = decode_position(after)
    first = max(position - contents.events_before, 0)
    entries = (
        (number, event_item(event_columns(event, number=contents.events_before + number + 1, room=max_characters // 2)))
        for number, event in enumerate(contents.events[first : first + limit + 1], start=first)
    )
    page = fill(entries, limit=limit, room=max_characters)
    last = page.items[-1]["cursor"] if page.items else str(position)
    return Page(items=page.items, next_cursor=last, truncated=page.truncated)


def _latest_active(reader: SessionReader, read_scope: ReadScope) -> SessionFile:
    active = (item for item, _ in reader.summaries(read_scope.session_glob) if item.status == "active")
    latest = max(active, key=lambda item: (item.last_activity_at, item.session_id), default=None)
    found = None if latest is None else reader.find(latest.session_id)
    if found is None:
        raise none_active()
    return found


def _get_session_summary(contents: SessionFile, command: GetSessionSummary) -> dict[str, Any]:
    assert contents.session is not None
    room = command.max_characters
    return fit(session_item(session_columns(contents.session, count_contents(contents), room=room)), room)


def _retrieve_memory(contents: SessionFile, command: RetrieveMemory) -> dict[str, Any]:
    memory = contents.memories.get(command.key)
    for revision in [memory, *memory.revisions] if memory else ():
        if command.revision in (None, revision.revision):
            columns = memory_columns(contents, revision, room=command.max_characters, offset=command.offset)
            return fit(memory_item(columns, offset=command.offset), command.max_characters)
    message = f"{command.key!r} does not have revision {command.revision}." if command.revision else ""
    latest = sorted(contents.memories.values(), key=lambda memory: memory.updated_at, reverse=True)
    raise not_in_session("memory", command.key, (memory.key for memory in latest), message=message)


def _get_task(contents: SessionFile, command: GetTask) -> dict[str, Any]:
    task = contents.tasks.get(command.task_id)
    if task is None:
        raise not_in_session("task", command.task_id, reversed(contents.tasks))
    columns = whole_task_columns(contents, task, room=command.max_characters, offset=command.offset)
    return whole_task(columns, offset=command.offset, room=command.max_characters)


def _get_artifact(contents: SessionFile, command: GetArtifact) -> dict[str, Any]:
    artifact = contents.artifacts.get(command.artifact_id)
    if artifact and command.revision not in (None, artifact.revision):
        artifact = contents.artifact_revisions.get((command.artifact_id, command.revision or 0))
    if artifact is None:
        message = f"{command.artifact_id!r} does not have revision {command.revision}." if command.revision else ""
        raise not_in_session("artifact", command.artifact_id, reversed(contents.artifacts), message=message)
    room, offset = command.max_characters, command.offset
    columns = artifact_columns(contents, artifact, room=room)
    content = json_columns(artifact.content, "content", room=room, offset=offset)
    return whole_artifact(columns | content, offset=offset, room=room)


def _resume_bundle(contents: SessionFile, command: ResumeBundle) -> dict[str, Any]:
    assert contents.session is not None

    def rows(section: Section, room: int) -> Iterator[Columns]:
        found = _BUNDLED[section.name](contents) if section.memories is None else _bundled_memories(contents, section)
        total = {"total": len(found)}
        return (_bundle_columns(contents, section, item, room) | total for item in found[:MOST_ITEMS])

    room = command.max_characters
    return compose(session_columns(contents.session, count_contents(contents), room=room), rows, room=room)


def _bundled_memories(contents: SessionFile, section: Section) -> list[Any]:
    assert section.memories is not None
    types, statuses = section.memories.types, section.memories.statuses
    found = [memory for memory in contents.memories.values() if memory.type in types and memory.status in statuses]
    found.sort(key=lambda memory: (memory.updated_at, memory.key), reverse=True)
    if section.memories.are_due:
        found.sort(key=lambda memory: memory.due or NEVER)
    return sorted(found, key=lambda memory: memory.status == "superseded")


_BUNDLED: dict[str, Callable[[SessionFile], list[Any]]] = {
    "tasks": lambda contents: sorted(
        (task for task in contents.tasks.values() if task.finished_at is None), key=lambda task: -task.priority
    ),
    "artifacts": lambda contents: list(reversed(contents.artifacts.values())),
    "conversation": lambda contents: contents.transcript()[::-1],
}


def _bundle_columns(contents: SessionFile, section: Section, item: Any, room: int) -> dict[str, Any]:
    match section.name:
        case "tasks":
            return task_columns(contents, item, room=room)
        case "artifacts":
            beginning = json_columns(item.content, "content", room=HEAD_CHARACTERS)
            return artifact_columns(contents, item, room=room) | beginning
        case "conversation":
            end = item.content[max(len(item.content) - room, 0) :]
            head = {"chunk_id": item.chunk_id, "start_at": item.start_at, "created_at": item.created_at}
            return {**head, "content": end, "length": len(item.content)}
    return memory_columns(contents, item, room=room)


def _list_sessions(reader: SessionReader, command: ListSessions, read_scope: ReadScope) -> Page:
    after = decode_cursor(command.cursor, tuple[datetime, str])
    room = command.max_characters // 2
    words, during = words_of(command.q or ""), read_scope.during(command)
    found = (
        ((item.last_activity_at, item.session_id), session_columns(item, counts, room=room))
        for item, counts in reader.summaries(read_scope.session_glob)
        if command.filter in ("all", item.status)
        and during(item.last_activity_at)
        and has_words(words, session_id=item.session_id, title=item.title, context=item.context)
        and (after is None or (item.last_activity_at, item.session_id) < after)
    )
    latest = heapq.nlargest(command.limit + 1, found, key=lambda entry: entry[0])
    entries = ((place, session_item(columns)) for place, columns in latest)
    return fill(entries, limit=command.limit, room=command.max_characters)


def _read_conversation(reader: SessionReader, command: ReadConversation, read_scope: ReadScope) -> Page:
    [contents] = reader.within(read_scope)
    start, previous = decode_cursor(command.cursor, Place), None
    positions = contents.positions["chunks"]
    rest = contents.transcript()
    places = [(chunk.said_at, positions[chunk.chunk_id]) for chunk in rest]
    first = 0
    if start:
        first = bisect_left(places, (start.said_at, start.position))
    elif command.chunk_id is not None:
        chunk = contents.chunks.get(command.chunk_id)
        if chunk is None:
            raise not_in_session("chunk", command.chunk_id, reversed(contents.chunks))
        first = places.index((chunk.said_at, positions[chunk.chunk_id]))
        previous = rest[first - 1].chunk_id if first else None
    inside = start.offset if start else command.offset
    chunks = (
        chunk_columns(contents, chunk, room=command.max_characters, offset=0 if number else inside)
        for number, chunk in enumerate(rest[first : first + command.limit + 1])
    )
    return page_of_chunks(chunks, limit=command.limit, max_characters=command.max_characters, previous=previous)


def _list_memories(reader: SessionReader, command: ListMemories | QueryMemories, read_scope: ReadScope) -> Page:
    is_by_due = isinstance(command, QueryMemories) and command.is_by_due
    shape: Any = tuple[str, datetime, str, str] if is_by_due else tuple[datetime, str, str]
    after: Any = decode_cursor(command.cursor, shape)
    room = command.max_characters // 2
    found = (
        (place, memory_columns(contents, memory, room=room))
        for contents, memory in _wanted_memories(reader, command, read_scope)
        for place in [_memory_place(contents, memory, is_by_due=is_by_due)]
        if after is None or (place > after if is_by_due else place < after)
    )
    choose = heapq.nsmallest if is_by_due else heapq.nlargest
    titled = read_scope.session_id is None
    entries = (
        (place, memory_item(columns, titled=titled))
        for place, columns in choose(command.limit + 1, found, key=lambda entry: entry[0])
    )
    return fill(entries, limit=command.limit, room=command.max_characters)


def _wanted_memories(
    reader: SessionReader, command: ListMemories | QueryMemories, read_scope: ReadScope
) -> Iterator[tuple[SessionFile, MemoryItem]]:
    is_wanted = _memory_filter(command, read_scope)
    skips_completed = (
        isinstance(command, QueryMemories) and read_scope.session_id is None and not command.include_completed
    )
    for contents in reader.within(read_scope):
        if skips_completed and contents.session and contents.session.status == "completed":
            continue
        yield from ((contents, memory) for memory in contents.memories.values() if is_wanted(memory))


def _memory_place(contents: SessionFile, memory: MemoryItem, *, is_by_due: bool) -> tuple[Any, ...]:
    place = (memory.updated_at, contents.session_id, memory.key)
    return (memory.due or NEVER, *place) if is_by_due else place


def _memory_filter(command: ListMemories | QueryMemories, read_scope: ReadScope) -> Callable[[Any], bool]:
    if isinstance(command, ListMemories):
        return lambda _: True
    during, tags = read_scope.during(command), set(command.tags)
    due_after, due_before = command.due_period(read_scope.now)
    return lambda memory: (
        command.type in (None, memory.type)
        and command.status in (None, memory.status if command.type else shown_status(memory.type, memory.status))
        and is_due(memory.due, due_after, due_before)
        and (not tags or not tags.isdisjoint(memory.tags))
        and during(memory.updated_at)
    )


def _list_tasks(reader: SessionReader, command: ListTasks, read_scope: ReadScope) -> Page:
    after = decode_cursor(command.cursor, TaskPlace)
    start = None if after is None else _task_order(after)
    during = read_scope.during(command)
    room = command.max_characters // 2
    found = (
        (_task_order(place), place, task_columns(contents, task, room=room))
        for contents in reader.within(read_scope)
        for task in contents.tasks.values()
        if all(getattr(command, name) in (None, getattr(task, name)) for name in ("status", "agent_name", "task_type"))
        and during(task.updated_at)
        for place in [_task_place(contents, task)]
        if start is None or _task_order(place) > start
    )
    first = heapq.nsmallest(command.limit + 1, found, key=lambda entry: entry[0])
    titled = read_scope.session_id is None
    entries = ((place, task_item(columns, titled=titled)) for _, place, columns in first)
    return fill(entries, limit=command.limit, room=command.max_characters)


def _task_place(contents: SessionFile, task: TaskItem) -> TaskPlace:
    position = contents.positions["tasks"][task.task_id]
    if task.finished_at is not None:
        return TaskPlace(position=position, session_id=contents.session_id, finished_at=task.finished_at)
    return TaskPlace(position=position, session_id=contents.session_id, priority=task.priority)


def _task_order(place: TaskPlace) -> tuple[Any, ...]:
    """Sort key: first the unfinished by priority and age, then the finished, the latest first."""
    if place.finished_at is None:
        return (0, -(place.priority or 0), place.position, place.session_id)
    return (1, (_BEGINNING - place.finished_at) // timedelta(microseconds=1), -place.position, place.session_id)


def _list_artifacts(reader: SessionReader, command: ListArtifacts, read_scope: ReadScope) -> Page:
    if command.artifact_id is not None:
        contents = reader.require(read_scope.require_session(), read_scope.session_glob)
        return _list_revisions(contents, command, command.artifact_id, read_scope)
    after = decode_cursor(command.cursor, ItemPlace)
    is_wanted = _artifact_filter(command, read_scope)
    room = command.max_characters // 2
    found = (
        (position, artifact_columns(contents, artifact, room=room))
        for contents in reader.within(read_scope)
        for artifact in contents.artifacts.values()
        if is_wanted(artifact)
        for position in [(contents.positions["artifacts"][artifact.artifact_id], contents.session_id)]
        if after is None or position < (after.position, after.session_id)
    )
    latest = heapq.nlargest(command.limit + 1, found, key=lambda entry: entry[0])
    titled = read_scope.session_id is None
    entries = (
        (ItemPlace(position=position, session_id=session_id), artifact_item(columns, titled=titled))
        for (position, session_id), columns in latest
    )
    return fill(entries, limit=command.limit, room=command.max_characters)


def _recent_activity(reader: SessionReader, command: RecentActivity, read_scope: ReadScope) -> Page:
    after = decode_cursor(command.cursor, ActivityPlace)
    during = read_scope.during(command)
    _, until = command.period(read_scope.now)
    found = (
        (place, contents, item)
        for contents in reader.within(read_scope)
        for source in sources_of(command)
        for item in _items_of(contents, source.kind)
        if (at := getattr(item, source.at)) is not None and during(at)
        if source.changed is None or (until is not None and getattr(item, source.changed) >= until)
        for place in [
            ActivityPlace(
                at=at, source=source.name, session_id=contents.session_id, id=getattr(item, ID_NAMES[source.kind])
            )
        ]
        if after is None or place < after
    )
    latest = heapq.nlargest(wanted_of(command), found, key=lambda entry: entry[0])
    return page_of_activity(
        ((place, activity_columns(contents, item, room=READ_LENGTH)) for place, contents, item in latest), command
    )


def _items_of(contents: SessionFile, kind: Kind) -> Iterable[Any]:
    match kind:
        case "session":
            return [contents.session] if contents.session else []
        case "conversation":
            return contents.chunks.values()
        case "memory":
            return contents.memories.values()
        case "task":
            return contents.tasks.values()
        case "artifact":
            return contents.artifacts.values()


def _list_revisions(contents: SessionFile, command: ListArtifacts, artifact_id: str, read_scope: ReadScope) -> Page:
    if artifact_id not in contents.artifacts:
        raise not_in_session("artifact", artifact_id, reversed(contents.artifacts))
    before = decode_cursor(command.cursor, v.Revision)
    is_wanted = _artifact_filter(command, read_scope)
    room = command.max_characters // 2
    found = [
        item
        for item in (contents.artifacts[artifact_id], *contents.artifact_revisions.values())
        if item.artifact_id == artifact_id and is_wanted(item) and (before is None or item.revision < before)
    ]
    latest = heapq.nlargest(command.limit + 1, found, key=lambda item: item.revision)
    entries = (
        (item.revision, artifact_revision_item(artifact_columns(contents, item, room=room) | length))
        for item in latest
        for length in [json_columns(item.content, "content", room=0)]
    )
    return fill(entries, limit=command.limit, room=command.max_characters)


def _artifact_filter(command: ListArtifacts, read_scope: ReadScope) -> Callable[[Any], bool]:
    during = read_scope.during(command)
    return lambda artifact: (
        command.type in (None, artifact.type)
        and command.task_id in (None, artifact.task_id)
        and during(artifact.updated_at)
    )


_ONE: dict[type[ReadCommand], Callable[[SessionFile, Any], dict[str, Any]]] = {
    GetSessionSummary: _get_session_summary,
    RetrieveMemory: _retrieve_memory,
    GetTask: _get_task,
    GetArtifact: _get_artifact,
    ResumeBundle: _resume_bundle,
}
_LISTS: dict[type[ReadCommand], Callable[[SessionReader, Any, ReadScope], Page]] = {
    ListSessions: _list_sessions,
    ReadConversation: _read_conversation,
    QueryMemories: _list_memories,
    ListMemories: _list_memories,
    ListTasks: _list_tasks,
    ListArtifacts: _list_artifacts,
    Search: search,
    RecentActivity: _recent_activity,
}
