"""What became of a webhook: from Postgres once it was decided, from Redis while it waits or Postgres is away."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import msgspec
from msgspec import Raw
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.database import Database
from api.list_response import list_response
from api.operations.pending_deliveries import list_waiting
from models import field_types as v
from models.errors import Forbidden, NotFound, Unavailable
from models.queue.inbox import Entry, decode_outcome, decode_receipt, dedup_key, outcome_key
from models.timestamps import format_utc
from relay.auth.access_control import AccessControl
from relay.auth.authentication import Caller, require_session
from relay.http.query_parameters import decode_parameters
from relay.http.responses import JsonResponse
from relay.http.routing import route
from relay.redis_client import REDIS_ERRORS
from sessions.commands.parked_events import is_open
from sessions.postgres.operations.deliveries import find_delivery, list_deliveries

NO_EXPIRY = -1
"""What Redis says of a key that stays; a `seen` key does until its delivery was decided."""

NOT_KEPT = (
    "The answer to a read is kept for a minute, and only until the sender that waits for it has got it. Send it again, "
    "under the same id if you like, and wait for the answer."
)


class OneDelivery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of GET /v1/deliveries/{delivery_id}."""

    delivery_id: v.DeliveryId
    source: v.Id | None = None


class ManyDeliveries(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of GET /v1/deliveries."""

    status: v.DeliveryStatus | None = None
    session_id: v.Id | None = None
    source: v.Id | None = None
    limit: v.Limit = 50
    cursor: v.Cursor | None = None


class Deliveries:
    """The endpoints."""

    def __init__(self, *, access: AccessControl, database: Database, redis: Redis) -> None:
        self._access = access
        self._database = database
        self._redis = redis

    @property
    def routes(self) -> list[Route]:
        """Where deliveries are asked for."""
        return [route("read_deliveries", self.list), route("read_delivery", self.get)]

    async def list(self, request: Request) -> Response:
        """Those that were decided, or with `status=accepted` those that wait; newest first, admin sees all sources.
        Each in short: its result is at its own address."""
        caller = await self._access.authorize(request, "read")
        asked = decode_parameters(request.query_params, ManyDeliveries)
        require_session(caller, asked.session_id)
        source = _source_for(caller, asked.source) if asked.source or not caller.has("admin") else None
        if asked.status == "accepted":
            shown = partial(_is_shown, caller=caller, asked=asked, source=source)
            return list_response(await list_waiting(self._redis, limit=asked.limit, shown=shown))
        page = await self._database.read(
            partial(
                list_deliveries,
                status=asked.status,
                session_id=asked.session_id,
                session_glob=caller.session_glob,
                own_source=caller.source,
                source=source,
                limit=asked.limit,
                cursor=asked.cursor,
            ),
            source=caller.source,
        )
        return list_response(page)

    async def get(self, request: Request) -> Response:
        """One delivery, also while it waits, and also while Postgres is away."""
        caller = await self._access.authorize(request, "read")
        asked = decode_parameters(request.query_params, OneDelivery, **request.path_params)
        delivery = await self._find(caller, _source_for(caller, asked.source), asked.delivery_id)
        if delivery is None or not _may_see(caller, source=delivery["source"], session_id=delivery["session_id"]):
            raise NotFound(
                f"There is no delivery {asked.delivery_id!r}.",
                code="delivery_not_found",
                field="delivery_id",
                hint="GET /v1/deliveries lists those that were decided.",
            )
        return JsonResponse(delivery)

    async def _find(self, caller: Caller, source: str, delivery_id: str) -> Mapping[str, Any] | None:
        look = partial(find_delivery, source=source, delivery_id=delivery_id)
        try:
            decided = await self._database.read(look, source=caller.source)
        except Unavailable:
            waiting, final = await self._find_in_redis(source, delivery_id)
            if waiting is None or final:
                raise
            return waiting
        if decided is None:
            waiting, final = await self._find_in_redis(source, delivery_id)
            if not final:
                return waiting
            # It was decided between the two looks.
            decided = await self._database.read(look, source=caller.source)
        if decided is None:
            return None
        if is_open(decided):
            waiting, final = await self._find_again(source, delivery_id)
            if waiting is not None and not final:
                return waiting
        content_hash = decided.pop("hash")
        if decided["command"] and "result" not in decided and "error" not in decided:
            result = await self._find_result(outcome_key(source, delivery_id, content_hash))
            decided = {**decided, **(result or {"hint": NOT_KEPT})}
        return decided

    async def _find_in_redis(self, source: str, delivery_id: str) -> tuple[dict[str, Any] | None, bool]:
        """The delivery as it waits, if it is known here, and whether it was decided."""
        key = dedup_key(source, delivery_id)
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.get(key)
                pipeline.pttl(key)
                seen, expiry = await pipeline.execute()
        except REDIS_ERRORS as error:
            raise Unavailable("The inbox does not answer at the moment; try again in some seconds.") from error
        if seen is None:
            return None, False
        receipt = decode_receipt(seen)
        waiting = {
            "delivery_id": delivery_id,
            "source": source,
            "status": "accepted",
            "command": receipt.command,
            "session_id": receipt.session_id,
            "accepted_at": format_utc(receipt.accepted_at),
        }
        return waiting, expiry != NO_EXPIRY

    async def _find_again(self, source: str, delivery_id: str) -> tuple[dict[str, Any] | None, bool]:
        """What was not taken because of its session's state, if it came again and waits."""
        try:
            return await self._find_in_redis(source, delivery_id)
        except Unavailable:
            return None, False

    async def _find_result(self, key: str) -> dict[str, Raw]:
        """The result of a read, if somebody waited for it and has not got it, for as long as it is kept."""
        try:
            value = cast("bytes | None", await self._redis.get(key))
        except REDIS_ERRORS:
            return {}
        if value is None:
            return {}
        outcome = decode_outcome(value)
        return {"result" if outcome.status < 400 else "error": outcome.body}


def _is_shown(entry: Entry, *, caller: Caller, asked: ManyDeliveries, source: str | None) -> bool:
    of_session = asked.session_id is None or entry.session_id == asked.session_id
    is_visible = _may_see(caller, source=entry.source, session_id=entry.session_id)
    return of_session and source in (None, entry.source) and is_visible


def _may_see(caller: Caller, *, source: str, session_id: str | None) -> bool:
    """Whether the caller may see a delivery. Nothing tells of which sessions the answer to one without session speaks,
    so a key for some sessions sees only its own."""
    if session_id is None:
        return source == caller.source or caller.session_glob is None
    return caller.sees(session_id)


def _source_for(caller: Caller, source: str | None) -> str:
    if source is None or source == caller.source:
        return caller.source
    if not caller.has("admin"):
        raise Forbidden("These are another key's deliveries.", field="source", expected="a key with the scope admin")
    return source
