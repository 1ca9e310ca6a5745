"""The log of rejected requests in Redis, for admins: the newest ones, and a count by cause.

It holds nothing that a request carried: no headers, body, query, key or signature.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter, deque
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from models import field_types as v
from models.errors import RelayError, Unavailable
from models.process.url_redaction import mask_path
from relay.auth.access_control import AccessControl
from relay.auth.authentication import require_all_sessions
from relay.http.access_log import note_error
from relay.http.query_parameters import decode_parameters
from relay.http.responses import JsonResponse
from relay.http.routing import route
from relay.redis_client import REDIS_ERRORS

LIST_KEY = "sr:refusals"
"""Rejections as JSON, the newest first."""
COUNTS_KEY = "sr:refusals:counts"
"""A hash: rejections by cause."""
KEPT = 1_000
KEPT_PER_SECOND = 10
"""The rest is only counted. In a flood the eleventh tells nothing new."""
FLUSH_SECONDS = 1.0
PATH_LENGTH = 200
ID_PATTERN = r"^[0-9a-f]{24}$(?!\n)"
"""Nanoseconds, for sorting, and random digits, so that ids of two processes differ."""

Cause = Literal[
    "address",
    "bad_signature",
    "clock_skew",
    "conflict",
    "media_type",
    "missing_scope",
    "no_key",
    "not_json",
    "rate",
    "schema",
    "too_large",
    "too_slow",
    "unknown_key",
]

_BY_CODE: dict[str, Cause] = {
    "address_not_allowed": "address",
    "clock_skew": "clock_skew",
    "delivery_conflict": "conflict",
    "key_missing": "no_key",
    "signature_invalid": "bad_signature",
    "signature_missing": "bad_signature",
    "unknown_hook": "unknown_key",
}
_BY_STATUS: dict[int, Cause] = {
    400: "not_json",
    401: "unknown_key",
    403: "missing_scope",
    408: "too_slow",
    413: "too_large",
    415: "media_type",
    422: "schema",
    429: "rate",
}
"""For codes not in the table above. An error in neither table is not a rejection, but an answer or a fault of ours."""


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """A rejected request."""

    id: str
    """Sorts by time."""
    at: datetime
    cause: str
    code: str
    status: int
    method: str
    path: str
    address: str | None
    source: str | None
    """The sender, if it had a valid credential."""
    size: int | None
    """Content-Length."""


class RejectionParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Query parameters of the list."""

    cause: Cause | None = None
    limit: v.Limit = 100
    cursor: Annotated[str, Meta(pattern=ID_PATTERN, description="next_cursor of the page before")] | None = None


class RejectionLog:
    """Collects this process' rejections and writes them to Redis. While Redis is unavailable, it keeps the newest and
    counts all."""

    def __init__(self, redis: Redis, *, kept_per_second: int = KEPT_PER_SECOND) -> None:
        self._redis = redis
        self._most_per_second = kept_per_second
        self._counts: Counter[str] = Counter()
        self._newest: deque[bytes] = deque(maxlen=KEPT)
        self._second = 0
        self._kept_this_second = 0

    def record(self, scope: Scope, error: RelayError) -> None:
        """Record a rejected request, if the error is a rejection. Cheap, and never waits."""
        note_error(scope, error)
        cause = cause_of(error)
        if cause is None:
            return
        self._counts[cause] += 1
        second = int(time.time())  # The same in all processes.
        if second != self._second:
            self._second, self._kept_this_second = second, 0
        if self._kept_this_second < self._most_per_second:
            self._kept_this_second += 1
            self._newest.append(msgspec.json.encode(_describe(scope, error, cause)))

    async def run(self) -> None:
        """Write to Redis once a second, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write to Redis. An unconfirmed write is repeated, so rejections may be counted twice."""
        counts, newest = self._counts, list(self._newest)
        if not counts:
            return
        self._counts = Counter()
        self._newest.clear()
        try:
            await self._write(counts, newest)
        except BaseException as error:
            self._counts += counts
            self._newest = deque([*newest, *self._newest], maxlen=KEPT)
            if not isinstance(error, REDIS_ERRORS):
                raise

    async def _write(self, counts: Counter[str], newest: list[bytes]) -> None:
        async with self._redis.pipeline(transaction=True) as pipeline:
            if newest:
                pipeline.lpush(LIST_KEY, *newest)
                pipeline.ltrim(LIST_KEY, 0, KEPT - 1)
            for cause, count in counts.items():
                pipeline.hincrby(COUNTS_KEY, cause, count)
            await pipeline.execute()

    async def read(self) -> tuple[list[Rejection], dict[str, int]]:
        """Returns the newest rejections of all processes, the newest first, and the counts by cause. Raises
        Unavailable."""
        await self.flush()
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.lrange(LIST_KEY, 0, KEPT - 1)
                pipeline.hgetall(COUNTS_KEY)
                kept, counts = await pipeline.execute()
        except REDIS_ERRORS as error:
            raise Unavailable("The rejected requests cannot be read at the moment.") from error
        items = [msgspec.json.decode(item, type=Rejection) for item in kept]
        items.sort(key=lambda item: item.id, reverse=True)  # Processes write theirs at different times.
        return items, {cause.decode(): int(count) for cause, count in sorted(counts.items())}


def cause_of(error: RelayError) -> Cause | None:
    """Returns the cause of a rejection; None if the error is not a rejection."""
    return _BY_CODE.get(error.code) or _BY_STATUS.get(error.status)


def rejection_routes(rejections: RejectionLog, *, access: AccessControl) -> list[Route]:
    """`GET /v1/refusals`. Needs Redis only."""

    async def list_rejections(request: Request) -> Response:
        caller = await access.authorize(request, "admin")
        require_all_sessions(caller)
        asked = decode_parameters(request.query_params, RejectionParameters)
        items, counts = await rejections.read()
        return JsonResponse({**page_of(items, asked), "counts": counts})

    return [route("read_refusals", list_rejections)]


def page_of(items: list[Rejection], asked: RejectionParameters) -> dict[str, Any]:
    """Returns a page of the rejections, which are sorted, and the cursor of the next page."""
    found = [
        item for item in items if asked.cause in (None, item.cause) and (asked.cursor is None or item.id < asked.cursor)
    ]
    page = found[: asked.limit]
    return {"items": page, "next_cursor": page[-1].id if len(found) > len(page) else None}


def _describe(scope: Scope, error: RelayError, cause: Cause) -> Rejection:
    state = scope.get("state", {})
    client = scope.get("client")
    nanoseconds = time.time_ns()
    return Rejection(
        id=f"{nanoseconds:016x}{secrets.token_hex(4)}",
        at=datetime.fromtimestamp(nanoseconds / 1e9, UTC),
        cause=cause,
        code=error.code,
        status=error.status,
        method=scope["method"],
        path=mask_path(scope["path"])[:PATH_LENGTH],
        address=state.get("address", client[0] if client else None),
        source=state.get("source"),
        size=_announced_size(scope),
    )


def _announced_size(scope: Scope) -> int | None:
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(announced[:15]) if announced.isdigit() else None
