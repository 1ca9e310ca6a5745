"""The endpoint at /mcp: checks host, origin, key and JSON of a request before the MCP server sees it.

Requests are stateless, so any relay process can answer any of them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from api.deferred import Deferred
from api.mcp.errors import protocol_fields
from api.mcp.messages import read_message
from api.public_url import public_url_of
from models.errors import Forbidden, Misdirected, RelayError, Unauthorized
from models.routes import template_of
from models.settings import Settings
from relay.auth.access_control import AccessControl
from relay.http.responses import error_response
from relay.http.routing import route
from relay.ingest.endpoints import Ingest

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    from api.tasks.claims import Claims


class McpEndpoint:
    """The endpoint. `run` must be entered for as long as requests are served.

    The SDK is imported for the first request with a key: that takes half a second, and 40 MB.
    """

    def __init__(self, settings: Settings, *, access: AccessControl, ingest: Ingest, claims: Claims) -> None:
        self._access = access
        self._on_error = ingest.record_error
        self._hosts = {"localhost", urlsplit(settings.public_url).hostname or "localhost"}
        self._public_url = settings.public_url
        self._max_body_bytes = settings.max_body_bytes
        self._ingest = ingest
        self._claims = claims
        self._manager = Deferred(self._make_manager)
        self._serving: asyncio.Task[None] | None = None
        self._is_serving = asyncio.Event()
        self._stopping = asyncio.Event()

    @property
    def routes(self) -> list[Route]:
        """The route for MCP clients. It takes POST only: the server keeps no stream open."""
        return [route("mcp", self.post)]

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Serve requests within the block. Can be entered once."""
        try:
            yield
        finally:
            self._stopping.set()
            if self._serving is not None:
                await self._serving

    async def post(self, request: Request) -> Response:
        """Handle one protocol message. Errors are returned in the protocol's form, too."""
        try:
            body = await self._authorize(request)
            return _Served(await self._start(), body)
        except RelayError as error:
            self._on_error(request.scope, error)
            content = protocol_fields(error)
            headers = self._challenge(request) if isinstance(error, Unauthorized) else {}
            return error_response(error, headers, content={"jsonrpc": "2.0", "id": None, "error": content})

    def _make_manager(self) -> StreamableHTTPSessionManager:
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        from api.mcp.server import make_server
        from api.mcp.tool_handlers import ToolHandlers

        # The SDK's log lines may quote requests. Errors that matter are logged where they are raised.
        logging.getLogger("mcp").setLevel(logging.CRITICAL)
        return StreamableHTTPSessionManager(
            make_server(ToolHandlers(ingest=self._ingest, claims=self._claims), on_error=self._on_error),
            json_response=True,
            stateless=True,
            max_request_body_size=self._max_body_bytes,
        )

    async def _start(self) -> StreamableHTTPSessionManager:
        """Return the SDK's manager, which serves from the first request on."""
        manager = await self._manager.get()
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve(manager))
        await self._is_serving.wait()
        return manager

    async def _serve(self, manager: StreamableHTTPSessionManager) -> None:
        async with manager.run():
            self._is_serving.set()
            await self._stopping.wait()

    def _challenge(self, request: Request) -> dict[str, str]:
        """Point an app that cannot send a key to the OAuth metadata (RFC 9728)."""
        metadata = f"{public_url_of(request, public_url=self._public_url)}{template_of('oauth_resource_mcp')}"
        # Without invalid_token an app would keep a revoked token (RFC 6750, 3.1).
        invalid = 'error="invalid_token", ' if "authorization" in request.headers else ""
        return {"www-authenticate": f'Bearer {invalid}resource_metadata="{metadata}"'}

    async def _authorize(self, request: Request) -> bytes:
        """Authorize a request and return its body. Puts the caller and the message into the request's state."""
        self._require_own(request)
        request.state.caller = caller = await self._access.authenticate(request)
        body = await self._access.read_body(request, caller, limit=self._max_body_bytes)
        async with self._access.large_bodies.turn(body):
            message = read_message(body)
        request.state.message = message
        return message.body

    def _require_own(self, request: Request) -> None:
        """Raise Misdirected or Forbidden for requests that a web page may have been tricked into sending.

        An attacker's host name can be made to resolve to this relay (DNS rebinding); an IP address cannot.
        """
        if not self._is_own(_host_of(f"//{request.headers.get('host', '')}")):
            raise Misdirected(
                expected="the host of PUBLIC_URL, localhost, or an IP address",
                hint="Set PUBLIC_URL to the URL by which clients reach this relay.",
            )
        origin = request.headers.get("origin")
        if origin is not None and not self._is_own(_host_of(origin)):
            raise Forbidden(
                "Web pages of other sites may not call this relay from a browser.",
                code="wrong_origin",
                field="Origin",
                expected="no Origin, or the one of PUBLIC_URL",
            )

    def _is_own(self, host: str) -> bool:
        return host in self._hosts or _is_address(host)


class _Served(Response):
    """The MCP server's response to a request whose body has already been read."""

    def __init__(self, manager: StreamableHTTPSessionManager, body: bytes) -> None:
        super().__init__()
        self._manager = manager
        self._read = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request to the MCP server."""
        messages: list[Message] = [{"type": "http.request", "body": self._read, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        # The body has been decompressed and checked to be JSON.
        replaced = {b"content-type": b"application/json", b"content-length": str(len(self._read)).encode()}
        headers = [(name, value) for name, value in scope["headers"] if name not in (*replaced, b"content-encoding")]
        await self._manager.handle_request({**scope, "headers": [*headers, *replaced.items()]}, replay, send)


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
