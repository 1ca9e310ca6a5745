"""Reads by GET: each route runs a read command directly in Postgres. Its query parameters are the command's fields."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Literal, NamedTuple

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.list_response import list_response
from api.sessions.read_access import authorize_reader
from api.sessions.reader import Reader
from models import field_types as v
from models.commands.definitions import (
    GetArtifact,
    GetSessionSummary,
    GetTask,
    ListArtifacts,
    ListSessions,
    ListTasks,
    QueryMemories,
    ReadCommand,
    ReadConversation,
    RecentActivity,
    RetrieveMemory,
    Search,
)
from models.field_types import SETTLED
from relay.auth.access_control import AccessControl
from relay.auth.authentication import Caller, require_session
from relay.http.query_parameters import decode_parameters
from relay.http.responses import JsonResponse
from relay.http.routing import route
from relay.http.waiting import wait_any
from relay.limits.concurrency import ConcurrencyLimiter
from relay.notifications.tasks import LOOK_SECONDS, TaskNotifier
from sessions.reads.results import ReadResult

MAX_WAITING = 1_000
"""Concurrent task reads with `wait` in this process."""
RENAMED = {"read_sessions": {"status": "filter"}}
"""Parameters that also accept the field's name in responses."""


class ReadRoute(NamedTuple):
    """A route's name, its command, and the part of the command's data that it returns."""

    name: str
    command: type[ReadCommand]
    answer: Literal["list", "whole", "memory", "task", "artifact"]


READS = (
    ReadRoute("read_sessions", ListSessions, "list"),
    ReadRoute("read_session", GetSessionSummary, "whole"),
    ReadRoute("read_session_summary", GetSessionSummary, "whole"),
    ReadRoute("read_transcript", ReadConversation, "list"),
    ReadRoute("read_session_memories", QueryMemories, "list"),
    ReadRoute("read_memory", RetrieveMemory, "memory"),
    ReadRoute("read_session_tasks", ListTasks, "list"),
    ReadRoute("read_task", GetTask, "task"),
    ReadRoute("read_session_artifacts", ListArtifacts, "list"),
    ReadRoute("read_artifact", GetArtifact, "artifact"),
    ReadRoute("read_search", Search, "list"),
    ReadRoute("read_activity", RecentActivity, "list"),
    ReadRoute("read_memories", QueryMemories, "list"),
    ReadRoute("read_tasks", ListTasks, "list"),
    ReadRoute("read_artifacts", ListArtifacts, "list"),
)


class ChosenSession(msgspec.Struct, frozen=True, kw_only=True):
    """The session_id of a read, from the path or the query."""

    session_id: v.Id | None = None


class Reads:
    """The endpoints."""

    def __init__(self, *, access: AccessControl, reader: Reader, tasks: TaskNotifier, stopping: asyncio.Event) -> None:
        self._access = access
        self._reader = reader
        self._tasks = tasks
        self._stopping = stopping
        self._limiter = ConcurrencyLimiter(MAX_WAITING)

    @property
    def routes(self) -> list[Route]:
        """The routes of all read commands."""
        return [route(read.name, partial(self._answer, read)) for read in READS]

    async def _answer(self, chosen: ReadRoute, request: Request) -> Response:
        caller = await authorize_reader(self._access, request)
        session_id = choose_session(request)
        require_session(caller, session_id)
        given = {name: value for name, value in request.path_params.items() if name != "session_id"}
        command = decode_parameters(_parameters(chosen, request), chosen.command, **given)
        if chosen.answer == "list":
            return list_response(await self._reader.page(caller, session_id, command))
        if isinstance(command, GetTask) and command.wait:
            answer = await self._wait(request, caller, command, session_id=session_id or "")
        else:
            answer = await self._reader.read(caller, session_id, command)
        return JsonResponse(answer.data if chosen.answer == "whole" else answer.data[chosen.answer])

    async def _wait(self, request: Request, caller: Caller, command: GetTask, *, session_id: str) -> ReadResult:
        """Return the task once it has finished or asks, or its state when the time is over."""
        clock = asyncio.get_running_loop().time
        ends_at = clock() + command.wait
        watched = self._tasks.settled(session_id, command.task_id)
        with (
            self._limiter.acquire(caller.source),
            watched as settled,
            self._access.watch_caller(request.receive, caller) as gone,
        ):
            while True:
                settled.clear()
                answer = await self._reader.read(caller, session_id, command)
                left = ends_at - clock()
                is_over = left <= 0 or gone.done() or self._stopping.is_set()
                if is_over or answer.data["task"]["status"] in SETTLED:
                    return answer
                await wait_any(settled, gone, self._stopping, seconds=min(left, LOOK_SECONDS))
                self._access.require_valid(caller)


def choose_session(request: Request) -> str | None:
    """Return the session_id of the path, or else of the query. Raises Invalid."""
    given = {name: value for name, value in request.path_params.items() if name == "session_id"}
    query = QueryParams([item for item in request.query_params.multi_items() if item[0] == "session_id"])
    return decode_parameters(query, ChosenSession, **given).session_id


def _parameters(read: ReadRoute, request: Request) -> QueryParams:
    """The query without session_id, with max_characters at its maximum unless given."""
    names = RENAMED.get(read.name, {})
    items = [(names.get(name, name), value) for name, value in request.query_params.multi_items()]
    items = [item for item in items if item[0] != "session_id"]
    if not any(name == "max_characters" for name, _ in items):
        items.append(("max_characters", str(v.MAX_CHARACTERS)))
    return QueryParams(items)
