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
from relay.ingest.pipeline import Sender
from relay.limits.request_rates import rate_headers, with_rate_headers

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

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer the request. Returns False, having done nothing, if it is not an ordinary one."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["query_string"]:
            return False
        accept = self._find(scope["path"])
        if accept is None:
            return False
        headers = IndexedHeaders(scope["headers"])
        if "expect" in headers:
            return False
        scope.setdefault("state", {})
        try:
            response = await self._respond(accept, headers, scope, receive)
        except ClientDisconnect:
            return True  # Nobody would read an answer.
        await _send(response, scope, receive, send)
        return True

    def _find(self, path: str) -> Accept | None:
        if endpoint := self._endpoints.get(path):
            return endpoint
        folder, slash, name = path.rpartition("/")
        family = self._families.get(folder + slash)
        return partial(family, name=name) if family and name else None

    async def _respond(self, accept: Accept, headers: IndexedHeaders, scope: Scope, receive: Receive) -> Response:
        try:
            self._allowlist.admit(scope)
            return await accept(Sender.of(scope, receive, headers=headers))
        except RelayError as error:
            return rejection_response(scope, error, self._record_rejection)
        except ClientDisconnect:
            raise
        except Exception as error:
            return bug_response(scope, error)


async def _send(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a response with the RateLimit headers: in one piece, if the server can do that."""
    state = scope["state"]
    respond: Respond | None = scope.get("extensions", {}).get(RESPOND)
    if respond is not None and type(response) is JsonResponse:
        allowance = state.get("allowance")
        headers = response.raw_headers if allowance is None else [*response.raw_headers, *rate_headers(allowance)]
        if respond(response.status_code, headers, bytes(response.body)):
            return
    await response(scope, receive, with_rate_headers(state, send))


def _folder_of(name: str) -> str:
    folder, slash, _ = ADDRESSES[name].path.rpartition("/")
    return folder + slash
