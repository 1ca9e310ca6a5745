"""Endpoints for listing, showing, replaying and discarding dead letters and parked events. For operators with the scope
admin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Literal

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
from relay.auth.authentication import Caller, require_session
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
        caller, parameters, criteria = await self._many(request)
        work = partial(list_dead_letters, wanted=criteria, limit=parameters.limit, cursor=parameters.cursor)
        return list_response(await self._database.read(work, source=caller.source))

    async def show(self, request: Request) -> Response:
        """Return one dead letter with its payload and traceback."""
        caller, criteria = await self._one(request)
        found = await self._database.read(partial(find_dead_letter, wanted=criteria), source=caller.source)
        if found is None:
            raise _not_found(criteria)
        return JsonResponse(found)

    async def replay(self, request: Request) -> Response:
        """Return one to the inbox, at the end of its shard. Repeatable: it takes effect once."""
        caller, criteria = await self._one(request)
        await self._resolve(criteria, DeadLetterResolution(by=caller.source, at=datetime.now(UTC)))
        return JsonResponse({"replayed": 1}, 202)

    async def replay_all(self, request: Request) -> Response:
        """Return the matching dead letters to the inbox, oldest first, at most `limit` from `cursor` on. Repeatable,
        also after an interruption."""
        caller, parameters, criteria = await self._many(request)
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
        caller, criteria = await self._one(request)
        await self._resolve(criteria, DeadLetterResolution(by=caller.source, at=datetime.now(UTC), discards=True))
        return JsonResponse({"discarded": 1}, 202)

    async def _resolve(self, criteria: DeadLetterFilter, resolution: DeadLetterResolution) -> None:
        work = partial(entries_to_rule, wanted=criteria, resolution=resolution)
        entries, _ = await self._database.read(work, source=resolution.by)
        if not entries:
            raise _not_found(criteria)
        await self._push(entries[0])

    async def _many(self, request: Request) -> tuple[Caller, ManyDeadLetters, DeadLetterFilter]:
        caller = await self._access.authorize(request, "admin")
        parameters = decode_parameters(request.query_params, ManyDeadLetters)
        require_session(caller, parameters.session_id)
        criteria = DeadLetterFilter(
            status=parameters.status,
            source=parameters.source,
            session_id=parameters.session_id,
            command=parameters.command,
            session_glob=caller.session_glob,
        )
        return caller, parameters, criteria

    async def _one(self, request: Request) -> tuple[Caller, DeadLetterFilter]:
        caller = await self._access.authorize(request, "admin")
        parameters = decode_parameters(request.query_params, OneDeadLetter, **request.path_params)
        source = parameters.source or caller.source
        return caller, DeadLetterFilter(
            source=source, delivery_id=parameters.delivery_id, session_glob=caller.session_glob
        )


def _not_found(criteria: DeadLetterFilter) -> NotFound:
    return NotFound(
        f"Dead letter {criteria.delivery_id!r} of source {criteria.source!r} not found.",
        code="dead_letter_not_found",
        field="delivery_id",
        hint="GET /v1/dead-letters lists all dead letters. Set source if it belongs to another key.",
    )
