"""Answers the ordinary request to the ingest as plain ASGI, before the middlewares and the router.

It applies the same rules, in the same order, through the same functions. Whatever is not ordinary (another method or
path, a query, `Expect`) is left to the app.

Most webhooks have arrived in whole, and need to wait for nothing but the push. They are answered without a task.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.commands.payloads import Submission, parse_envelope
from models.errors import RelayError
from models.routes import ADDRESSES
from relay.auth.authentication import Caller
from relay.http.client_addresses import IpAllowlist
from relay.http.headers import IndexedHeaders
from relay.http.protocol import RESPOND, Respond
from relay.http.responses import JsonResponse, RecordRejection, bug_response, rejection_response
from relay.ingest.endpoints import Ingest
from relay.ingest.pipeline import NO_QUERY, Sender
from relay.limits.rate_limiter import RateLimitStatus
from relay.limits.request_rates import rate_lines, with_rate_headers

EXPECT = b"expect"
"""A client that sends this header may leave out the body."""

Accept = Callable[[Sender], Awaitable[Response]]


class FastPath:
    """The short way to the endpoints of an ingest."""

    def __init__(self, ingest: Ingest, *, allowlist: IpAllowlist, record_rejection: RecordRejection) -> None:
        self._allowlist = allowlist
        self._record_rejection = record_rejection
        self._push_at_once = ingest.pipeline.push_at_once
        self._accept_webhook: Accept = ingest.accept_webhook
        self._endpoints = {
            ADDRESSES["webhook"].path: self._accept_webhook,
            ADDRESSES["webhook_alias"].path: self._accept_webhook,
        }
        """By path."""
        self._families = {
            _folder_of("command"): ingest.accept_command,
            _folder_of("hook"): ingest.accept_event,
        }
        """By the path up to its last segment, which they take, too."""

    def find(self, scope: Scope) -> Accept | None:
        """Returns the endpoint of an ordinary request, else None."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["query_string"]:
            return None
        path: str = scope["path"]
        endpoint = self._endpoints.get(path)
        if endpoint is None:
            folder, slash, name = path.rpartition("/")
            family = self._families.get(folder + slash)
            if family is None or not name:
                return None
            endpoint = partial(family, name=name)
        for header, _ in scope["headers"]:
            if header == EXPECT:
                return None
        return endpoint

    def answer_at_once(self, scope: Scope, body: bytes, run: Callable[[ASGIApp], None]) -> bool:
        """Answer a webhook that has arrived in whole, as soon as it is stored. `run` runs an app in a task, for a
        response that cannot be sent at once. Returns False, having changed nothing, if it takes `answer`."""
        if self.find(scope) != self._accept_webhook:
            return False
        try:
            self._allowlist.admit(scope)
        except RelayError:
            return False

        def finish(result: Response | Exception) -> None:
            response = self._error_response(scope, result) if isinstance(result, Exception) else result
            if not _respond_at_once(response, scope):
                run(partial(_respond_in_parts, response))

        sender = Sender("POST", IndexedHeaders(scope["headers"]), NO_QUERY, _nothing_more, scope["state"])
        return self._push_at_once(sender, body, _parse, finish)

    async def answer(self, accept: Accept, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that was found to be ordinary."""
        state = scope.setdefault("state", {})
        try:
            self._allowlist.admit(scope)
            response = await accept(Sender("POST", IndexedHeaders(scope["headers"]), NO_QUERY, receive, state))
        except ClientDisconnect:
            return  # Nobody would read an answer.
        except Exception as error:
            response = self._error_response(scope, error)
        if not _respond_at_once(response, scope):
            await _respond_in_parts(response, scope, receive, send)

    def _error_response(self, scope: Scope, error: Exception) -> Response:
        if isinstance(error, RelayError):
            return rejection_response(scope, error, self._record_rejection)
        return bug_response(scope, error, self._record_rejection)


async def _respond_in_parts(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    await response(scope, receive, with_rate_headers(scope["state"], send))


async def _nothing_more() -> Message:
    raise ClientDisconnect  # The body was taken already.


def _parse(body: bytes, _: Caller) -> Submission:
    return parse_envelope(body)


def _respond_at_once(response: Response, scope: Scope) -> bool:
    """Send a response in one piece, with the RateLimit headers; returns False if it, or the server, does not allow
    that."""
    respond: Respond | None = scope.get("extensions", {}).get(RESPOND)
    if respond is None or type(response) is not JsonResponse:
        return False
    allowance: RateLimitStatus | None = scope["state"].get("allowance")
    lines = response.header_lines() if allowance is None else response.header_lines() + rate_lines(allowance)
    return respond(response.status_code, lines, bytes(response.body))


def _folder_of(name: str) -> str:
    folder, slash, _ = ADDRESSES[name].path.rpartition("/")
    return folder + slash
