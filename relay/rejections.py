"""Requests that were refused: the newest of them and how many, in Redis, for admins to see who knocks and why.

What a refused request carried is not kept: no headers, no body, no query, no key or signature.
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
from relay.http.query_parameters import decode_parameters
from relay.http.responses import JsonResponse
from relay.http.routing import route
from relay.redis_client import REDIS_ERRORS

LIST_KEY = "sr:refusals"
"""The newest first, each a Refusal."""
COUNTS_KEY = "sr:refusals:counts"
"""A hash: of each cause, how many there have been."""
KEPT = 1_000
KEPT_PER_SECOND = 10
"""By each process; the rest is only counted. Whoever is flooded learns nothing more from the eleventh."""
FLUSH_SECONDS = 1.0
PATH_LENGTH = 200
ID_PATTERN = r"^[0-9a-f]{24}$(?!\n)"
"""Nanoseconds, so that they sort, and some chance, so that those of two processes differ."""

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
"""Where the code says nothing else. What is in neither table is no refusal: an answer, or trouble of our own."""


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """A refused request."""

    id: str
    """Later ones sort later."""
    at: datetime
    cause: str
    code: str
    status: int
    method: str
    path: str
    address: str | None
    source: str | None
    """Of who had a valid credential."""
    size: int | None
    """Of the body in bytes, as it was announced."""


class RejectionParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of the list."""

    cause: Cause | None = None
    limit: v.Limit = 100
    cursor: Annotated[str, Meta(pattern=ID_PATTERN, description="next_cursor of the page before")] | None = None


class RejectionLog:
    """Those of this process on their way into Redis. While Redis is away the newest are kept here, and all counted."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._counts: Counter[str] = Counter()
        self._newest: deque[bytes] = deque(maxlen=KEPT)
        self._second = 0
        self._kept_this_second = 0

    def record(self, scope: Scope, error: RelayError) -> None:
        """Remember that a request was refused, if the error means that. Cheap, and never waits."""
        cause = cause_of(error)
        if cause is None:
            return
        self._counts[cause] += 1
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._kept_this_second = second, 0
        if self._kept_this_second < KEPT_PER_SECOND:
            self._kept_this_second += 1
            self._newest.append(msgspec.json.encode(_describe(scope, error, cause)))

    async def run(self) -> None:
        """Bring them to Redis once a second, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Bring them to Redis. What it does not confirm is tried again, so it may be counted twice."""
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
        """The newest of all processes, the newest first, and how many there have been of each cause. Raises
        Unavailable."""
        await self.flush()
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.lrange(LIST_KEY, 0, KEPT - 1)
                pipeline.hgetall(COUNTS_KEY)
                kept, counts = await pipeline.execute()
        except REDIS_ERRORS as error:
            raise Unavailable("The refused requests cannot be read at the moment.") from error
        items = [msgspec.json.decode(item, type=Rejection) for item in kept]
        items.sort(key=lambda item: item.id, reverse=True)  # Processes bring theirs when they get to it.
        return items, {cause.decode(): int(count) for cause, count in sorted(counts.items())}


def cause_of(error: RelayError) -> Cause | None:
    """Why the request was refused; None if it was not, but answered, or hit by trouble of our own."""
    return _BY_CODE.get(error.code) or _BY_STATUS.get(error.status)


def rejection_routes(refusals: RejectionLog, *, access: AccessControl) -> list[Route]:
    """`GET /v1/refusals`. Needs Redis only."""

    async def list_refusals(request: Request) -> Response:
        caller = await access.authorize(request, "admin")
        require_all_sessions(caller)
        asked = decode_parameters(request.query_params, RejectionParameters)
        items, counts = await refusals.read()
        return JsonResponse({**_page(items, asked), "counts": counts})

    return [route("read_refusals", list_refusals)]


def _page(items: list[Rejection], asked: RejectionParameters) -> dict[str, Any]:
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
