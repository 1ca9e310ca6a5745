"""Endpoints for listing, showing, replaying and discarding dead letters and parked events. For operators with the scope
admin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.database import Database
from api.list_response import list_response
from models import field_types as v
from models.errors import NotFound
from models.queue.inbox import DeadLetterResolution, Entry
from relay.auth.access_control import AccessControl
from relay.auth.authentication import Caller, require_scope, require_session
from relay.http.query_parameters import decode_parameters
from relay.http.responses import JsonResponse
from relay.http.routing import route
from relay.ingest.pusher import Pushed
from sessions.postgres.operations.dead_letters import (
    DeadLetterFilter,
    entries_to_rule,
    find_dead_letter,
    list_dead_letters,
)
from sessions.reads.results import Page

Push = Callable[[Entry], Awaitable[Pushed]]

STEP = 8
"""The number of dead letters held in memory at a time; each may be as large as a webhook."""


class ManyDeadLetters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of GET /v1/dead-letters and POST /v1/dead-letters/replay: a filter for dead letters, or with
    `status=parked` for events that a session rejected because of its state."""

    status: Literal["failed", "parked"] = "failed"
    source: v.Id | None = None
    session_id: v.Id | None = None
    command: v.Label | None = None
    limit: v.Limit = 100
    cursor: v.Cursor | None = None


class OneDeadLetter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Selects one dead letter, by default of the caller's own source."""

    delivery_id: v.DeliveryId
    source: v.Id | None = None


class DeadLetters:
    """The endpoints."""

    def __init__(self, *, access: AccessControl, database: Database, push: Push) -> None:
        self._access = access
        self._database = database
        self._push = push

    @property
    def routes(self) -> list[Route]:
        """The routes for dead letters."""
        return [
            route("read_dead_letters", self.list),
            route("replay_dead_letters", self.replay_all),
            route("replay_dead_letter", self.replay),
            route("read_dead_letter", self.show),
            route("discard_dead_letter", self.discard),
        ]

    async def list(self, request: Request) -> Response:
        """List the matching dead letters, oldest first, with their errors but without payloads."""
        caller = await self._access.authorize(request, "admin")
        return list_response(await self.page(caller, decode_parameters(request.query_params, ManyDeadLetters)))

    async def page(self, caller: Caller, parameters: ManyDeadLetters) -> Page:
        """Return a page of the list."""
        criteria = _criteria(caller, parameters)
        work = partial(list_dead_letters, wanted=criteria, limit=parameters.limit, cursor=parameters.cursor)
        return await self._database.read(work, source=caller.source)

    async def show(self, request: Request) -> Response:
        """Return one dead letter with its payload and traceback."""
        caller, chosen = await self._one(request)
        return JsonResponse(await self.find(caller, chosen))

    async def find(self, caller: Caller, chosen: OneDeadLetter) -> dict[str, Any]:
        """Return one dead letter with its payload and traceback. Raises NotFound."""
        criteria = _criteria_of_one(caller, chosen)
        found = await self._database.read(partial(find_dead_letter, wanted=criteria), source=caller.source)
        if found is None:
            raise _not_found(criteria)
        return found

    async def replay(self, request: Request) -> Response:
        """Return one to the inbox, at the end of its shard. Repeatable: it takes effect once."""
        await self.resolve(*await self._one(request))
        return JsonResponse({"replayed": 1}, 202)

    async def replay_all(self, request: Request) -> Response:
        """Return the matching dead letters to the inbox, oldest first, at most `limit` from `cursor` on. Repeatable,
        also after an interruption."""
        caller = await self._access.authorize(request, "admin")
        parameters = decode_parameters(request.query_params, ManyDeadLetters)
        criteria = _criteria(caller, parameters)
        resolution = DeadLetterResolution(by=caller.source, at=datetime.now(UTC))
        replayed, cursor = 0, parameters.cursor
        while replayed < parameters.limit:
            step = min(STEP, parameters.limit - replayed)
            work = partial(entries_to_rule, wanted=criteria, resolution=resolution, limit=step, cursor=cursor)
            entries, cursor = await self._database.read(work, source=caller.source)
            for entry in entries:
                await self._push(entry)
            replayed += len(entries)
            if cursor is None:
                break
        return JsonResponse({"replayed": replayed, "next_cursor": cursor}, 202)

    async def discard(self, request: Request) -> Response:
        """Discard one. It goes through the inbox like a replay, and remains a rejected delivery, so that it has no
        effect if sent again. Repeatable."""
        await self.resolve(*await self._one(request), discards=True)
        return JsonResponse({"discarded": 1}, 202)

    async def resolve(self, caller: Caller, chosen: OneDeadLetter, *, discards: bool = False) -> None:
        """Replay or discard one. Raises NotFound."""
        criteria = _criteria_of_one(caller, chosen)
        resolution = DeadLetterResolution(by=caller.source, at=datetime.now(UTC), discards=discards)
        work = partial(entries_to_rule, wanted=criteria, resolution=resolution)
        entries, _ = await self._database.read(work, source=resolution.by)
        if not entries:
            raise _not_found(criteria)
        await self._push(entries[0])

    async def _one(self, request: Request) -> tuple[Caller, OneDeadLetter]:
        caller = await self._access.authorize(request, "admin")
        return caller, decode_parameters(request.query_params, OneDeadLetter, **request.path_params)


def _criteria(caller: Caller, parameters: ManyDeadLetters) -> DeadLetterFilter:
    require_scope(caller, "admin")
    require_session(caller, parameters.session_id)
    return DeadLetterFilter(
        status=parameters.status,
        source=parameters.source,
        session_id=parameters.session_id,
        command=parameters.command,
        session_glob=caller.session_glob,
    )


def _criteria_of_one(caller: Caller, chosen: OneDeadLetter) -> DeadLetterFilter:
    require_scope(caller, "admin")
    source = chosen.source or caller.source
    return DeadLetterFilter(source=source, delivery_id=chosen.delivery_id, session_glob=caller.session_glob)


def _not_found(criteria: DeadLetterFilter) -> NotFound:
    return NotFound(
        f"Dead letter {criteria.delivery_id!r} of source {criteria.source!r} not found.",
        code="dead_letter_not_found",
        field="delivery_id",
        hint="GET /v1/dead-letters lists all dead letters. Set source if it belongs to another key.",
    )
