"""The pages of a session's memories, tasks, artifacts and journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast
from urllib.parse import quote

import msgspec
from msgspec import Raw
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from api.pages.rendering import HEADERS, more_url, render
from api.pages.session_page import SessionPages
from api.pages.texts import file_name
from api.pages.visitors import Visitor
from models import field_types as v
from models.commands.definitions import (
    GetArtifact,
    GetTask,
    ListArtifacts,
    ListTasks,
    QueryMemories,
    RetrieveMemory,
)
from models.field_types import MAX_CHARACTERS, MemoryStatus, MemoryType, TaskStatus
from relay.http.query_parameters import decode_parameters
from sessions.postgres.reads.read_commands import latest_events, page, read
from sessions.postgres.reads.tasks import read_task_titles
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import Page

PAGE_ITEMS = 30
BOARD_ITEMS = 60
"""Tasks on the board, if there are no more."""
COLUMN_ITEMS = 20
"""Else the tasks of one status on it."""
COLUMN_CHARACTERS = 20_000
OLD_REVISIONS = 20
"""Earlier revisions shown with a memory."""
OLD_CHARACTERS = 4_000
BOARD: Sequence[tuple[str, tuple[TaskStatus, ...]]] = (
    ("Asking", ("input_required",)),
    ("Running", ("running", "claimed")),
    ("Waiting", ("pending",)),
    ("Done", ("completed", "failed", "cancelled")),
)
"""The columns of the board. What waits for the reader comes first."""

T = TypeVar("T")
Parameters = TypeVar("Parameters", bound=msgspec.Struct)


class MemoryFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Query parameters of the list of memories."""

    session_id: v.Id
    type: MemoryType | None = None
    status: MemoryStatus | None = None
    tag: v.Name | None = None
    cursor: v.Cursor | None = None


class MemoryChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Chooses a memory."""

    session_id: v.Id
    key: v.Name
    offset: v.Offset = 0


class TaskFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Query parameters of the board; with a status it is a list of all tasks in that."""

    session_id: v.Id
    status: TaskStatus | None = None
    cursor: v.Cursor | None = None


class TaskChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Chooses a task."""

    session_id: v.Id
    task_id: v.Id
    offset: v.Offset = 0


class ArtifactFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Query parameters of the list of artifacts."""

    session_id: v.Id
    cursor: v.Cursor | None = None


class ArtifactChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Chooses an artifact, at a revision and from an offset on."""

    session_id: v.Id
    artifact_id: v.Id
    revision: v.Revision | None = None
    offset: v.Offset = 0


class JournalPlace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Query parameters of the journal."""

    session_id: v.Id
    before: v.Cursor | None = None


class SessionItems:
    """The pages."""

    def __init__(self, pages: SessionPages) -> None:
        self._pages = pages

    async def memories(self, request: Request, visitor: Visitor) -> Response:
        """List memories by type, status and tag, the latest first."""
        chosen = decode_parameters(request.query_params, MemoryFilter, **request.path_params)
        command = QueryMemories(
            type=chosen.type,
            status=chosen.status,
            tags=[chosen.tag] if chosen.tag else [],
            include_completed=True,
            limit=PAGE_ITEMS,
            cursor=chosen.cursor,
            max_characters=MAX_CHARACTERS,
        )
        return await self._show(request, visitor, "memories.html", partial(_page, command=command), chosen=chosen)

    async def memory(self, request: Request, visitor: Visitor) -> Response:
        """Show a memory with its earlier revisions."""
        chosen = decode_parameters(request.query_params, MemoryChoice, **request.path_params)
        command = RetrieveMemory(key=chosen.key, offset=chosen.offset, max_characters=MAX_CHARACTERS)
        return await self._show(request, visitor, "memory.html", partial(_read_revisions, command=command))

    async def tasks(self, request: Request, visitor: Visitor) -> Response:
        """Show the board."""
        chosen = decode_parameters(request.query_params, TaskFilter, **request.path_params)
        if chosen.status is None:
            return await self._show(request, visitor, "tasks.html", _read_board)
        command = ListTasks(status=chosen.status, cursor=chosen.cursor, limit=PAGE_ITEMS, max_characters=MAX_CHARACTERS)
        return await self._show(request, visitor, "task_list.html", partial(_page, command=command), chosen=chosen)

    async def task(self, request: Request, visitor: Visitor) -> Response:
        """Show a task with its output, and its question if it asks."""
        chosen = decode_parameters(request.query_params, TaskChoice, **request.path_params)
        command = GetTask(task_id=chosen.task_id, offset=chosen.offset, max_characters=MAX_CHARACTERS)

        def work(connection: Connection, read_scope: ReadScope) -> dict[str, Any]:
            made = ListArtifacts(task_id=chosen.task_id, limit=PAGE_ITEMS, max_characters=COLUMN_CHARACTERS)
            task: dict[str, Any] = read(connection, command, read_scope).data["task"]
            if chosen.offset:  # A later part has no more than the text.
                start = msgspec.structs.replace(command, offset=0, max_characters=COLUMN_CHARACTERS)
                task = _continued(read(connection, start, read_scope).data["task"], task)
            return {"task": task, "artifacts": page(connection, made, read_scope).items}

        return await self._show(request, visitor, "task.html", work, chosen=chosen)

    async def artifacts(self, request: Request, visitor: Visitor) -> Response:
        """List artifacts, the latest first."""
        chosen = decode_parameters(request.query_params, ArtifactFilter, **request.path_params)
        command = ListArtifacts(cursor=chosen.cursor, limit=PAGE_ITEMS, max_characters=MAX_CHARACTERS)

        def work(connection: Connection, read_scope: ReadScope) -> dict[str, Any]:
            listed = _page(connection, read_scope, command=command)
            task_ids = {item["task_id"] for item in listed["items"] if "task_id" in item}
            return listed | {"titles": read_task_titles(connection, sorted(task_ids), read_scope=read_scope)}

        return await self._show(request, visitor, "artifacts.html", work, chosen=chosen)

    async def artifact(self, request: Request, visitor: Visitor) -> Response:
        """Show an artifact, with its revisions."""
        chosen = decode_parameters(request.query_params, ArtifactChoice, **request.path_params)

        def work(connection: Connection, read_scope: ReadScope) -> dict[str, Any]:
            command = GetArtifact(
                artifact_id=chosen.artifact_id,
                revision=chosen.revision,
                offset=chosen.offset,
                max_characters=MAX_CHARACTERS,
            )
            versions = ListArtifacts(artifact_id=chosen.artifact_id, limit=PAGE_ITEMS, max_characters=COLUMN_CHARACTERS)
            artifact = read(connection, command, read_scope).data["artifact"]
            if chosen.offset:  # A later part has no more than the content.
                start = msgspec.structs.replace(command, offset=0, max_characters=COLUMN_CHARACTERS)
                artifact = _continued(read(connection, start, read_scope).data["artifact"], artifact)
            return {"artifact": artifact, "versions": page(connection, versions, read_scope).items}

        return await self._show(request, visitor, "artifact.html", work, chosen=chosen)

    async def download(self, request: Request, visitor: Visitor) -> Response:
        """Send an artifact as a file, which the browser stores and never shows."""
        chosen = decode_parameters(request.query_params, ArtifactChoice, **request.path_params)
        _, artifact = await self._pages.read(request, visitor, partial(_read_whole, chosen=chosen))
        name = quote(file_name(artifact["name"], artifact.get("format") or ""), safe="")
        headers = {**HEADERS, "Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
        content = artifact["content"].encode("utf-8", "replace")
        return Response(content, media_type="application/octet-stream", headers=headers)

    async def journal(self, request: Request, visitor: Visitor) -> Response:
        """List the journal, the latest first."""
        chosen = decode_parameters(request.query_params, JournalPlace, **request.path_params)

        def work(connection: Connection, read_scope: ReadScope) -> dict[str, Any]:
            session_id = read_scope.require_session()
            limits = {"limit": PAGE_ITEMS, "max_characters": MAX_CHARACTERS}
            found = latest_events(connection, session_id=session_id, before=chosen.before, **limits)
            return {"items": found.items, "next_cursor": found.next_cursor}

        return await self._show(request, visitor, "journal.html", work, chosen=chosen)

    async def _show(
        self,
        request: Request,
        visitor: Visitor,
        template: str,
        work: Callable[[Connection, ReadScope], dict[str, Any]],
        **more: Any,
    ) -> Response:
        """Read and render. In a thread, as Markdown may take long."""
        context, result = await self._pages.read(request, visitor, work)
        if cursor := result.get("next_cursor"):
            result = result | {"more": more_url(request, cursor, "before" if "journal" in template else "cursor")}
        return await asyncio.to_thread(partial(render, template, **{"more": None, **context, **more, **result}))


def _continued(start: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Return an item with a later part of its long text."""
    return {name: value for name, value in start.items() if name != "next_offset"} | part


def _page(connection: Connection, read_scope: ReadScope, *, command: Any) -> dict[str, Any]:
    found: Page = page(connection, command, read_scope)
    return {"items": found.items, "next_cursor": found.next_cursor}


def _read_whole(connection: Connection, read_scope: ReadScope, *, chosen: ArtifactChoice) -> dict[str, Any]:
    """Return an artifact with all of its content as text."""
    command = GetArtifact(artifact_id=chosen.artifact_id, revision=chosen.revision, max_characters=MAX_CHARACTERS)
    artifact: dict[str, Any] = read(connection, command, read_scope).data["artifact"]
    part, content = artifact, _verbatim(artifact["content"])
    while "next_offset" in part:
        command = msgspec.structs.replace(command, offset=part["next_offset"])
        part = read(connection, command, read_scope).data["artifact"]
        content += _verbatim(part["content"])
    return artifact | {"content": content}


def _verbatim(content: Raw | str) -> str:
    """Return a JSON string's text, and any other JSON as it was sent."""
    if isinstance(content, str):
        return content
    verbatim = bytes(content).decode()
    return msgspec.json.decode(content, type=str) if verbatim.startswith('"') else verbatim


def _read_revisions(connection: Connection, read_scope: ReadScope, *, command: RetrieveMemory) -> dict[str, Any]:
    memory = read(connection, command, read_scope).data["memory"]
    latest = memory["revision"]
    earlier = []
    for revision in range(latest - 1, max(latest - 1 - OLD_REVISIONS, 0), -1):
        old = RetrieveMemory(key=command.key, revision=revision, max_characters=OLD_CHARACTERS)
        earlier.append(read(connection, old, read_scope).data["memory"])
    return {"memory": memory, "earlier": earlier}


def _read_board(connection: Connection, read_scope: ReadScope) -> dict[str, Any]:
    """Read all tasks at once if they are few, as in most sessions, or else the first ones of each status."""
    everything = page(connection, ListTasks(limit=BOARD_ITEMS, max_characters=MAX_CHARACTERS), read_scope)
    by_status: dict[str, Page] = {
        status: Page(items=[task for task in everything.items if task["status"] == status])
        for _, statuses in BOARD
        for status in statuses
    }
    if everything.next_cursor:
        for status in by_status:
            command = ListTasks(status=cast(TaskStatus, status), limit=COLUMN_ITEMS, max_characters=COLUMN_CHARACTERS)
            by_status[status] = page(connection, command, read_scope)
    columns = []
    for name, statuses in BOARD:
        tasks = [task for status in statuses for task in by_status[status].items]
        if name == "Done":
            tasks.sort(key=lambda task: task.get("finished_at") or "", reverse=True)
        more = [status for status in statuses if by_status[status].next_cursor]
        columns.append({"name": name, "tasks": tasks, "more": more})
    return {"columns": columns}
