"""OAuth endpoints: metadata, app registration, token exchange and revocation, and the sign-in page.

RFC 6749 with PKCE (7636), its metadata (8414, 9728), registration (7591), revocation (7009) and issuer (9207).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.deferred import Deferred
from api.oauth.form_bodies import read_form, with_body
from api.public_url import public_url_of
from models.access.api_keys import OAUTH_PREFIX, has_form_of_key, hash_key, key_id_of
from models.errors import Unauthorized
from models.routes import template_of
from relay.auth.access_control import AccessControl
from relay.http.responses import JsonResponse
from relay.http.routing import route
from sessions.api_keys import KeyRegister

if TYPE_CHECKING:
    from api.oauth.sign_in import SignIn

ANYWHERE = {"access-control-allow-origin": "*"}
"""Apps in a browser may call these endpoints: no cookie or other stored credential grants access."""
PREFLIGHT = {**ANYWHERE, "access-control-allow-methods": "GET, POST", "access-control-allow-headers": "*"}

Handle = Callable[[Request], Awaitable[Response]]


class OAuth:
    """The endpoints. What signing in needs is imported by the first request for it."""

    def __init__(
        self, *, access: AccessControl, redis: Redis, register: KeyRegister, public_url: str, first_key: str
    ) -> None:
        self._access = access
        self._register = register
        self._public_url = public_url

        def make_sign_in() -> SignIn:
            from api.oauth.sign_in import SignIn

            return SignIn(access=access, redis=redis, register=register, public_url=public_url, first_key=first_key)

        self._sign_in = Deferred(make_sign_in)

    @property
    def routes(self) -> list[Route]:
        """The routes for apps and their users."""
        return [
            route("oauth_resource", self.describe_resource),
            route("oauth_resource_mcp", self.describe_resource),
            route("oauth_server", self.describe_server),
            route("oauth_register", self._for_apps(self._register_app)),
            route("oauth_token", self._for_apps(self._issue_token)),
            route("oauth_revoke", self._for_apps(self._revoke)),
            route("oauth_authorize", self.authorize),
            route("show_sign_in", self.show_page),
            route("sign_in", self.sign_in),
        ]

    async def describe_resource(self, request: Request) -> Response:
        """Protected resource metadata of /mcp (RFC 9728)."""
        url = public_url_of(request, public_url=self._public_url)
        return self._respond(
            request,
            {
                "resource": f"{url}{template_of('mcp')}",
                "authorization_servers": [url],
                "bearer_methods_supported": ["header"],
                "resource_name": "session-relay",
            },
        )

    async def describe_server(self, request: Request) -> Response:
        """Authorization server metadata (RFC 8414)."""
        url = public_url_of(request, public_url=self._public_url)
        return self._respond(
            request,
            {
                "issuer": url,
                "authorization_endpoint": f"{url}{template_of('oauth_authorize')}",
                "token_endpoint": f"{url}{template_of('oauth_token')}",
                "registration_endpoint": f"{url}{template_of('oauth_register')}",
                "revocation_endpoint": f"{url}{template_of('oauth_revoke')}",
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code"],
                "token_endpoint_auth_methods_supported": ["none"],
                "revocation_endpoint_auth_methods_supported": ["none"],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
            },
        )

    async def authorize(self, request: Request) -> Response:
        """Redirect the user to the sign-in page, or show an error page."""
        return await (await self._sign_in.get()).authorize(request)

    async def show_page(self, request: Request) -> Response:
        """Show the sign-in page."""
        return await (await self._sign_in.get()).show_page(request)

    async def sign_in(self, request: Request) -> Response:
        """Check the key and redirect the user to the app with a code."""
        return await (await self._sign_in.get()).sign_in(request)

    async def _register_app(self, request: Request) -> Response:
        return await (await self._sign_in.get()).register(request)

    async def _issue_token(self, request: Request) -> Response:
        return await (await self._sign_in.get()).issue_token(request)

    async def _revoke(self, request: Request) -> Response:
        """Revoke a token. Its holder needs no other permission. An unknown token counts as revoked (RFC 7009)."""
        token = dict(parse_qsl((await request.body()).decode(errors="replace"))).get("token", "")
        if token.startswith(OAUTH_PREFIX) and has_form_of_key(token):
            try:
                caller = self._access.identify(token)
            except Unauthorized:
                return JsonResponse({})
            await asyncio.to_thread(self._register.revoke, key_id_of(hash_key(token)), by=caller.source)
        return JsonResponse({})

    def _for_apps(self, handle: Handle) -> Handle:
        """Wrap an endpoint for apps: it needs no key, and allows requests from browsers."""

        async def handle_request(request: Request) -> Response:
            if request.method == "OPTIONS":
                return Response(status_code=204, headers=PREFLIGHT)
            await self._access.count_anonymous(request)
            response = await handle(with_body(request, await read_form(request)))
            response.headers.update(ANYWHERE)
            return response

        return handle_request

    def _respond(self, request: Request, content: dict[str, Any]) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=PREFLIGHT)
        return JsonResponse(content, headers=ANYWHERE)
