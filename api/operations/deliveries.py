"""Delivery status: from Postgres once a delivery was decided, from Redis while it waits or Postgres is away."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from datetime import UTC, datetime
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
from models.commands.definitions import Moment, Zone
from models.errors import Forbidden, NotFound, Unavailable
from models.queue.inbox import Entry, decode_outcome, decode_receipt, dedup_key, outcome_key
from models.timestamps import format_utc, parse_moment, parse_zone
from relay.auth.access_control import AccessControl
from relay.auth.authentication import Caller, require_scope, require_session
from relay.http.query_parameters import decode_parameters
from relay.http.responses import JsonResponse
from relay.http.routing import route
from relay.redis_client import REDIS_ERRORS
from sessions.commands.parked_events import is_open
from sessions.postgres.operations.deliveries import events_of_delivery, find_delivery, list_deliveries
from sessions.reads.results import Page

NO_EXPIRY = -1
"""The TTL of a key that does not expire. A dedup key gets its expiry once the delivery is decided."""

NOT_KEPT = (
    "The response to a read is kept for one minute, and only until the waiting sender has received it. Send the read "
    "again, under the same id or a new one, and wait for the response."
)


class OneDelivery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of GET /v1/deliveries/{delivery_id}."""

    delivery_id: v.DeliveryId
    source: v.Id | None = None


class ManyDeliveries(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of GET /v1/deliveries."""

    status: v.DeliveryStatus | None = None
    session_id: v.Id | None = None
    source: v.Id | None = None
    since: Moment | None = None
    until: Moment | None = None
    timezone: Zone = "UTC"
    limit: v.Limit = 50
    cursor: v.Cursor | None = None

    def __post_init__(self) -> None:
        self.period(datetime.now(UTC))

    def period(self, now: datetime) -> tuple[datetime | None, datetime | None]:
        """Return `since` (inclusive) and `until` (exclusive) as times: of the decision, or of the acceptance of those
        that wait. Raises Invalid."""
        zone = parse_zone(self.timezone)
        since = self.since and parse_moment(self.since, field="since", now=now, zone=zone)
        until = self.until and parse_moment(self.until, field="until", now=now, zone=zone, end_of_day=True)
        return since or None, until or None


class Deliveries:
    """The endpoints."""

    def __init__(self, *, access: AccessControl, database: Database, redis: Redis) -> None:
        self._access = access
        self._database = database
        self._redis = redis

    @property
    def routes(self) -> list[Route]:
        """The routes for deliveries."""
        return [route("read_deliveries", self.list), route("read_delivery", self.get)]

    async def list(self, request: Request) -> Response:
        """List decided deliveries, or with `status=accepted` waiting ones, newest first and without results. A key with
        the scope admin sees all sources."""
        caller = await self._access.authorize(request, "read")
        return list_response(await self.page(caller, decode_parameters(request.query_params, ManyDeliveries)))

    async def page(self, caller: Caller, parameters: ManyDeliveries) -> Page:
        """Return a page of the list."""
        require_scope(caller, "read")
        require_session(caller, parameters.session_id)
        source = _source_for(caller, parameters.source) if parameters.source or not caller.has("admin") else None
        since, until = parameters.period(datetime.now(UTC))
        if parameters.status == "accepted":
            period = since or datetime.min.replace(tzinfo=UTC), until or datetime.max.replace(tzinfo=UTC)
            matches = partial(_matches, caller=caller, parameters=parameters, source=source, period=period)
            return await list_waiting(self._redis, limit=parameters.limit, matches=matches)
        return await self._database.read(
            partial(
                list_deliveries,
                status=parameters.status,
                session_id=parameters.session_id,
                session_glob=caller.session_glob,
                own_source=caller.source,
                source=source,
                since=since,
                until=until,
                limit=parameters.limit,
                cursor=parameters.cursor,
            ),
            source=caller.source,
        )

    async def get(self, request: Request) -> Response:
        """Return one delivery, also while it waits, and while Postgres is away."""
        caller = await self._access.authorize(request, "read")
        parameters = decode_parameters(request.query_params, OneDelivery, **request.path_params)
        return JsonResponse(await self.find(caller, parameters))

    async def find(self, caller: Caller, parameters: OneDelivery) -> Mapping[str, Any]:
        """Return one delivery. Raises NotFound."""
        require_scope(caller, "read")
        delivery = await self._find(caller, _source_for(caller, parameters.source), parameters.delivery_id)
        if delivery is None or not _may_see(caller, source=delivery["source"], session_id=delivery["session_id"]):
            raise NotFound(
                f"Delivery {parameters.delivery_id!r} not found.",
                code="delivery_not_found",
                field="delivery_id",
                hint="GET /v1/deliveries lists decided deliveries.",
            )
        return delivery

    async def effects(self, caller: Caller, delivery: Mapping[str, Any]) -> builtins.list[dict[str, Any]]:
        """Return the events that a delivery has left in its session's journal."""
        if delivery["session_id"] is None or "decided_at" not in delivery:
            return []
        identity = {name: delivery[name] for name in ("session_id", "source", "delivery_id")}
        decided_at = datetime.fromisoformat(delivery["decided_at"])
        work = partial(events_of_delivery, **identity, decided_at=decided_at)
        return await self._database.read(work, source=caller.source)

    async def _find(self, caller: Caller, source: str, delivery_id: str) -> Mapping[str, Any] | None:
        find = partial(find_delivery, source=source, delivery_id=delivery_id)
        try:
            decided = await self._database.read(find, source=caller.source)
        except Unavailable:
            waiting, final = await self._find_in_redis(source, delivery_id)
            if waiting is None or final:
                raise
            return waiting
        if decided is None:
            waiting, final = await self._find_in_redis(source, delivery_id)
            if not final:
                return waiting
            # It was decided between the two reads.
            decided = await self._database.read(find, source=caller.source)
        if decided is None:
            return None
        if is_open(decided):
            waiting, final = await self._find_retry(source, delivery_id)
            if waiting is not None and not final:
                return waiting
        content_hash = decided.pop("hash")
        if decided["command"] and "result" not in decided and "error" not in decided:
            result = await self._find_result(outcome_key(source, delivery_id, content_hash))
            decided = {**decided, **(result or {"hint": NOT_KEPT})}
        return decided

    async def _find_in_redis(self, source: str, delivery_id: str) -> tuple[dict[str, Any] | None, bool]:
        """Return the waiting delivery, if Redis knows it, and whether it has been decided."""
        key = dedup_key(source, delivery_id)
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.get(key)
                pipeline.pttl(key)
                seen, expiry = await pipeline.execute()
        except REDIS_ERRORS as error:
            raise Unavailable("The inbox does not answer at the moment; retry in a few seconds.") from error
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

    async def _find_retry(self, source: str, delivery_id: str) -> tuple[dict[str, Any] | None, bool]:
        """Find the waiting retry of a delivery that was rejected because of its session's state."""
        try:
            return await self._find_in_redis(source, delivery_id)
        except Unavailable:
            return None, False

    async def _find_result(self, key: str) -> dict[str, Raw]:
        """Return a read's stored result: it exists if a sender waited but has not received it, until it expires."""
        try:
            value = cast("bytes | None", await self._redis.get(key))
        except REDIS_ERRORS:
            return {}
        if value is None:
            return {}
        outcome = decode_outcome(value)
        return {"result" if outcome.status < 400 else "error": outcome.body}


def _matches(
    entry: Entry,
    *,
    caller: Caller,
    parameters: ManyDeliveries,
    source: str | None,
    period: tuple[datetime, datetime],
) -> bool:
    of_session = parameters.session_id is None or entry.session_id == parameters.session_id
    is_visible = _may_see(caller, source=entry.source, session_id=entry.session_id)
    is_in_time = period[0] <= entry.accepted_at < period[1]
    return of_session and source in (None, entry.source) and is_visible and is_in_time


def _may_see(caller: Caller, *, source: str, session_id: str | None) -> bool:
    """Return whether the caller may see a delivery. The response of one without a session may concern any session, so a
    key for some sessions sees only its own."""
    if session_id is None:
        return source == caller.source or caller.session_glob is None
    return caller.sees(session_id)


def _source_for(caller: Caller, source: str | None) -> str:
    if source is None or source == caller.source:
        return caller.source
    if not caller.has("admin"):
        raise Forbidden(
            "Reading another key's deliveries requires the scope admin.",
            field="source",
            expected="a key with the scope admin",
        )
    return source
