"""Rate limits per sender, for requests and for bytes of bodies, and the RateLimit headers."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from limits import RateLimitItem, parse_many
from limits.aio.storage import RedisStorage
from redis.asyncio import Redis
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.errors import SettingsError
from models.settings import Settings
from relay.limits.rate_limiter import RateLimiter, RateLimitStatus

RATE_EXAMPLE, BYTE_EXAMPLE = "600/minute", "100000000/minute"
ANONYMOUS_LIMIT = "60/minute"
"""For requests without a key that cost something, per client address."""
MAX_AMOUNT = 10**12
"""Numbers in Redis scripts are exact up to a few thousand times that."""


class RequestRates:
    """Applies the rate limits of all senders in one process."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        """Raises SettingsError for an invalid RATE_LIMIT or BYTE_LIMIT."""
        requests = parse_limit("RATE_LIMIT", settings.rate_limit, example=RATE_EXAMPLE)
        size = parse_limit("BYTE_LIMIT", settings.byte_limit, example=BYTE_EXAMPLE)
        if size.amount < settings.max_body_bytes:
            raise SettingsError(
                f"BYTE_LIMIT is {settings.byte_limit}, so a body of MAX_BODY_BYTES ({settings.max_body_bytes}) is "
                f"never accepted. Expected at least that many, such as {BYTE_EXAMPLE}."
            )
        storage = RedisStorage(
            "redis://",  # Not an address: connections come from the pool below.
            implementation="redispy",
            key_prefix="sr:limits",
            connection_pool=redis.connection_pool,  # type: ignore[arg-type]
        )
        self._requests = RateLimiter("requests", requests, storage)
        self._bytes = RateLimiter("bytes", size, storage)
        anonymous = parse_limit("", ANONYMOUS_LIMIT, example=RATE_EXAMPLE)
        self._anonymous = RateLimiter("requests", anonymous, storage)

    async def hit(self, source: str, state: MutableMapping[str, Any]) -> None:
        """Count a request before its body is read, and put the remaining quota into the request's state. Raises
        TooManyRequests."""
        if self._requests.spend(source, 1):
            state["allowance"] = self._requests.status_of(source)
        else:
            try:
                await self._requests.hit(source, 1)
            finally:
                state["allowance"] = self._requests.status_of(source)
        self._bytes.check(source)

    def holds(self, source: str, size: int) -> bool:
        """Whether this process has reserved enough quota for a request with a body of this size."""
        return self._requests.holds(source, 1) and self._bytes.holds(source, size)

    def spend(self, source: str, size: int, state: MutableMapping[str, Any]) -> bool:
        """Count a request and its body, after `holds`; returns whether the reserved quota did not expire meanwhile."""
        if not (self._bytes.spend(source, size) and self._requests.spend(source, 1)):
            return False
        state["allowance"] = self._requests.status_of(source)
        return True

    def spend_bytes(self, source: str, size: int) -> bool:
        """Count a body's bytes, if this process has reserved enough quota; returns whether it had."""
        return self._bytes.spend(source, size)

    async def hit_bytes(self, source: str, size: int) -> None:
        """Count a body's bytes. Raises TooManyRequests."""
        await self._bytes.hit(source, size)

    async def hit_anonymous(self, address: str) -> None:
        """Count a request without a key, by the client's address. Raises TooManyRequests."""
        await self._anonymous.hit(f"address:{address}", 1)


class RateLimitHeadersMiddleware:
    """Middleware: adds the RateLimit headers to every response to an authenticated client."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, with_rate_headers(scope.setdefault("state", {}), send))


def with_rate_headers(state: Mapping[str, Any], send: Send) -> Send:
    """Returns a `send` that adds the RateLimit headers, if the request's state has a quota when it responds."""

    async def send_with_headers(message: Message) -> None:
        allowance: RateLimitStatus | None = state.get("allowance")
        if allowance is not None and message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *rate_headers(allowance)]
        await send(message)

    return send_with_headers


def rate_lines(allowance: RateLimitStatus) -> bytes:
    """Returns the RateLimit headers as they are sent."""
    return _RATE_LINES % (allowance.limit, allowance.remaining, allowance.reset_seconds)


_RATE_LINES = b"ratelimit-limit: %d\r\nratelimit-remaining: %d\r\nratelimit-reset: %d\r\n"


def rate_headers(allowance: RateLimitStatus) -> list[tuple[bytes, bytes]]:
    """Returns the RateLimit headers in ASGI form."""
    return [
        (b"ratelimit-limit", b"%d" % allowance.limit),
        (b"ratelimit-remaining", b"%d" % allowance.remaining),
        (b"ratelimit-reset", b"%d" % allowance.reset_seconds),
    ]


def parse_limit(variable: str, text: str, *, example: str) -> RateLimitItem:
    """Parses a setting that holds one limit. Raises SettingsError."""
    try:
        found = parse_many(text)
    except ValueError:
        found = []
    if len(found) != 1 or not 1 <= found[0].amount <= MAX_AMOUNT:
        raise SettingsError(
            f"{variable} is not valid: expected a number from 1 to {MAX_AMOUNT:,} and a time, such as {example}."
        )
    return found[0]
