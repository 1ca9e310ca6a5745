"""Answers the ordinary request to the ingest as plain ASGI, before the middlewares and the router.

It applies the same rules, in the same order, through the same functions. Whatever is not ordinary (another method or
path, a query, `Expect`) is left to the app.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from models.errors import RelayError
from models.routes import ADDRESSES
from relay.http.client_addresses import IpAllowlist
from relay.http.headers import IndexedHeaders
from relay.http.protocol import RESPOND, Respond
from relay.http.responses import JsonResponse, RecordRejection, bug_response, rejection_response
from relay.ingest.endpoints import Ingest
from relay.ingest.pipeline import NO_QUERY, Sender
from relay.limits.rate_limiter import RateLimitStatus
from relay.limits.request_rates import rate_headers, with_rate_headers

EXPECT = b"expect"
"""A client that sends this header may leave out the body."""

Accept = Callable[[Sender], Awaitable[Response]]


class FastPath:
    """The short way to the endpoints of an ingest."""

    def __init__(self, ingest: Ingest, *, allowlist: IpAllowlist, record_rejection: RecordRejection) -> None:
        self._allowlist = allowlist
        self._record_rejection = record_rejection
        self._endpoints: dict[str, Accept] = {
            ADDRESSES["webhook"].path: ingest.accept_webhook,
            ADDRESSES["webhook_alias"].path: ingest.accept_webhook,
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

    async def answer(self, accept: Accept, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that was found to be ordinary."""
        state = scope.setdefault("state", {})
        try:
            self._allowlist.admit(scope)
            response = await accept(Sender("POST", IndexedHeaders(scope["headers"]), NO_QUERY, receive, state))
        except RelayError as error:
            response = rejection_response(scope, error, self._record_rejection)
        except ClientDisconnect:
            return  # Nobody would read an answer.
        except Exception as error:
            response = bug_response(scope, error, self._record_rejection)
        if not _respond_at_once(response, scope):
            await response(scope, receive, with_rate_headers(state, send))


def _respond_at_once(response: Response, scope: Scope) -> bool:
    """Send a response in one piece, with the RateLimit headers; returns False if it, or the server, does not allow
    that."""
    respond: Respond | None = scope.get("extensions", {}).get(RESPOND)
    if respond is None or type(response) is not JsonResponse:
        return False
    allowance: RateLimitStatus | None = scope["state"].get("allowance")
    headers = response.raw_headers if allowance is None else [*response.raw_headers, *rate_headers(allowance)]
    return respond(response.status_code, headers, bytes(response.body))


def _folder_of(name: str) -> str:
    folder, slash, _ = ADDRESSES[name].path.rpartition("/")
    return folder + slash
