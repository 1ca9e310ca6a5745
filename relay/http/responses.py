"""HTTP responses: JSON, and errors in their one form."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.commands.interface_names import to_routes
from models.errors import (
    Invalid,
    MethodNotAllowed,
    NotFound,
    RelayError,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from models.process.url_redaction import mask_path

LINGER_SECONDS = 2.0
"""Time for which the rest of a body that is too large is read and discarded, so that its sender sees the response."""
LINGER_BYTES = 32 * 1_048_576

RecordRejection = Callable[[Scope, RelayError], None]
"""Called with the error that answers a request."""

NOT_CACHED = (b"cache-control", b"no-store")
JSON_TYPE = (b"content-type", b"application/json")
PLAIN_COUNT = 3
PLAIN_LINES = b"cache-control: no-store\r\ncontent-length: %d\r\ncontent-type: application/json\r\n"
"""The number and the lines of the headers of most responses: these two, and the length between them."""

logger = logging.getLogger(__name__)


class JsonResponse(Response):
    """A response with a value as JSON, or with JSON text (bytes). Never cached."""

    media_type = "application/json"

    def __init__(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        # As the base class does, without its calls.
        self.status_code = status
        self.background = None
        self.body = content if isinstance(content, bytes) else msgspec.json.encode(content)
        self.init_headers(headers)

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Set the headers. Most responses have no others than these, which the base class would only find slowly."""
        if headers:
            super().init_headers({"cache-control": "no-store", **headers})
        else:
            self.raw_headers = [NOT_CACHED, (b"content-length", b"%d" % len(self.body)), JSON_TYPE]

    def header_lines(self) -> bytes:
        """The headers as they are sent. Raises RuntimeError if a value has a line break."""
        headers = self.raw_headers
        if len(headers) == PLAIN_COUNT and headers[0] is NOT_CACHED and headers[-1] is JSON_TYPE:
            return PLAIN_LINES % len(self.body)
        lines = [b"%b: %b\r\n" % header for header in headers]
        joined = b"".join(lines)
        if joined.count(b"\n") != len(lines) or joined.count(b"\r") != len(lines):
            raise RuntimeError("Invalid HTTP header value.")
        return joined


class LingeringResponse(JsonResponse):
    """A response to a body that was not read to its end; the connection closes afterwards."""

    def __init__(self, content: Any, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(content, status, {**headers, "connection": "close"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond, then read on briefly: closing at once would reset the connection under the response."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                await _discard(receive)
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b""})


async def _discard(receive: Receive) -> None:
    left, message = LINGER_BYTES, await receive()
    while left > 0 and message["type"] == "http.request" and message.get("more_body", False):
        left -= len(message.get("body", b""))
        message = await receive()


def error_response(
    error: RelayError, headers: Mapping[str, str] | None = None, *, content: Mapping[str, Any] | None = None
) -> Response:
    """Returns the response for an error; with `content` for clients that expect another form."""
    headers = {**_headers_of(error), **(headers or {})}
    content = content or {"error": error.body()}
    if isinstance(error, TooLarge):
        return LingeringResponse(content, error.status, headers)
    return JsonResponse(content, error.status, headers)


def _headers_of(error: RelayError) -> dict[str, str]:
    if isinstance(error, Unavailable | TooManyRequests):
        return {"retry-after": str(error.retry_after_seconds)}
    if isinstance(error, Unauthorized):
        return {"www-authenticate": "Bearer"}
    return {}


def exception_handlers(record_rejection: RecordRejection) -> dict[Any, Any]:
    """Exception handlers that return error responses; they call `record_rejection` for each RelayError."""

    async def answer_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RelayError)
        return rejection_response(request.scope, error, record_rejection)

    return {RelayError: answer_error, HTTPException: _answer_routing, ClientDisconnect: _answer_nobody}


def rejection_response(scope: Scope, error: RelayError, record_rejection: RecordRejection) -> Response:
    """Returns the response for an error that was raised while a request was handled, and records it."""
    record_rejection(scope, error)
    if error.hint and scope["method"] == "GET":
        error.hint = to_routes(error.hint)
    return error_response(error)


async def _answer_routing(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return error_response(NotFound("Unknown URL.", hint="GET /openapi.json lists all endpoints."))
    if error.status_code == 405:
        allowed = ", ".join(sorted(_methods_at(request)))
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"allow": allowed})
        return error_response(MethodNotAllowed(expected=allowed), {"allow": allowed})
    return error_response(Invalid(error.detail))


def _methods_at(request: Request) -> set[str]:
    """Returns the methods of all routes of this URL; the router reports those of the first one only."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    address = next(route.path for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return {method for route in routes if route.path == address for method in route.methods or ()}


async def _answer_nobody(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # The client has disconnected; nobody reads this.


def bug_response(scope: Scope, error: Exception, record_rejection: RecordRejection) -> Response:
    """Returns the response for an unexpected exception, records it, and logs where it was raised. Its text is not
    logged, as it may repeat a sender's data."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    place = (type(error).__name__, scope["method"], mask_path(scope["path"]))
    logger.error("Bug: %s at %s %s", *place, extra={"frames": frames})
    answer = RelayError("Internal error; the relay has logged it.")
    record_rejection(scope, answer)
    return error_response(answer)


class ServerErrorMiddleware:
    """Middleware: turns unexpected exceptions into an error in the usual form, records and logs them."""

    def __init__(self, app: ASGIApp, *, record_rejection: RecordRejection) -> None:
        self._app = app
        self._record_rejection = record_rejection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception as error:
            if scope["type"] != "http":
                raise
            response = bug_response(scope, error, self._record_rejection)
            if not started:
                await response(scope, receive, send)
