"""Dead letters for operators: list them, look into one, replay or discard. Needs a key with the scope admin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.database import Database
from api.reads import list_response
from models import vocabulary as v
from models.errors import NotFound
from models.inbox import Entry
from relay.gate import Gate
from relay.parameters import decode_parameters
from relay.pusher import Pushed
from relay.responses import JsonResponse
from sessions.postgres.dead_letters import Wanted, discard, entries_to_replay, find_dead_letter, list_dead_letters

Push = Callable[[Entry], Awaitable[Pushed]]


class ManyDeadLetters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of GET /v1/dead-letters and of POST /v1/dead-letters/replay."""

    source: v.Id | None = None
    session_id: v.Id | None = None
    command: v.Label | None = None
    limit: v.Limit = 100
    cursor: v.Cursor | None = None


class OneDeadLetter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters for one; without `source` it is the caller's own."""

    delivery_id: v.DeliveryId
    source: v.Id | None = None


class DeadLetters:
    """The endpoints."""

    def __init__(self, *, gate: Gate, database: Database, push: Push) -> None:
        self._gate = gate
        self._database = database
        self._push = push

    @property
    def routes(self) -> list[Route]:
        """Where dead letters are looked after."""
        one = "/v1/dead-letters/{delivery_id}"
        return [
            Route("/v1/dead-letters", self.list),
            Route("/v1/dead-letters/replay", self.replay_all, methods=["POST"]),
            Route(f"{one}/replay", self.replay, methods=["POST"]),
            Route(one, self.show, methods=["GET"]),
            Route(one, self.discard, methods=["DELETE"]),
        ]

    async def list(self, request: Request) -> Response:
        """Those that match, the oldest first, with the reason, without payload."""
        asked, wanted = await self._many(request)
        work = partial(list_dead_letters, wanted=wanted, limit=asked.limit, cursor=asked.cursor)
        return list_response(await self._database.read(work))

    async def show(self, request: Request) -> Response:
        """One with its payload and traceback."""
        wanted = await self._one(request)
        found = await self._database.read(partial(find_dead_letter, wanted=wanted))
        if found is None:
            raise _not_found(wanted)
        return JsonResponse(found)

    async def replay(self, request: Request) -> Response:
        """Put one back into the inbox, at the end of its shard. May be repeated: it takes effect once."""
        wanted = await self._one(request)
        if not await self._replay(wanted, limit=1):
            raise _not_found(wanted)
        return JsonResponse({"replayed": 1}, 202)

    async def replay_all(self, request: Request) -> Response:
        """Put those that match back into the inbox, `limit` at most, the oldest first."""
        asked, wanted = await self._many(request)
        return JsonResponse({"replayed": await self._replay(wanted, limit=asked.limit)}, 202)

    async def discard(self, request: Request) -> Response:
        """Give one up: it stays known as a rejected delivery, so that it takes no effect when it is sent again."""
        wanted = await self._one(request)
        if not await self._database.read(partial(discard, wanted=wanted, at=datetime.now(UTC))):
            raise _not_found(wanted)
        return JsonResponse({"discarded": 1})

    async def _replay(self, wanted: Wanted, *, limit: int) -> int:
        entries = await self._database.read(partial(entries_to_replay, wanted=wanted, limit=limit))
        for entry in entries:
            await self._push(entry)
        return len(entries)

    async def _many(self, request: Request) -> tuple[ManyDeadLetters, Wanted]:
        await self._gate.admit(request, "admin")
        asked = decode_parameters(request.query_params, ManyDeadLetters)
        return asked, Wanted(source=asked.source, session_id=asked.session_id, command=asked.command)

    async def _one(self, request: Request) -> Wanted:
        caller = await self._gate.admit(request, "admin")
        asked = decode_parameters(request.query_params, OneDeadLetter, **request.path_params)
        return Wanted(source=asked.source or caller.source, delivery_id=asked.delivery_id)


def _not_found(wanted: Wanted) -> NotFound:
    return NotFound(
        f"There is no dead letter {wanted.delivery_id!r} of {wanted.source!r}.",
        code="dead_letter_not_found",
        field="delivery_id",
        hint="GET /v1/dead-letters lists them all; name its source if it is not this key.",
    )
