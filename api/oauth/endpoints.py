"""The addresses of OAuth: what apps find out, register and exchange, and where somebody signs in.

RFC 6749 with PKCE (7636), its metadata (8414, 9728), registration (7591), revocation (7009) and issuer (9207).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from mcp.server.auth.handlers.authorize import AuthorizationHandler
from mcp.server.auth.handlers.register import RegistrationHandler
from mcp.server.auth.handlers.token import TokenHandler
from mcp.server.auth.middleware.client_auth import ClientAuthenticator
from mcp.server.auth.provider import construct_redirect_uri
from mcp.server.auth.settings import ClientRegistrationOptions
from mcp.shared.auth import InvalidRedirectUriError
from pydantic import AnyUrl, ValidationError
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Message

from api.oauth import clients
from api.oauth.codes import Codes, Grant, expiry
from api.oauth.provider import CHALLENGE, MAX_STATE_LENGTH, SIGN_IN_PATH, Provider
from api.oauth.resource_indicators import is_own_resource
from api.oauth.sign_in_page import refusal_page, sign_in_page
from api.public_url import public_url_of
from models.access.api_keys import OAUTH_PREFIX, has_form_of_key, hash_key, key_id_of
from models.errors import RelayError, TooLarge, Unauthorized
from models.routes import template_of
from relay.auth.access_control import AccessControl
from relay.auth.authentication import Caller
from relay.http.responses import JsonResponse
from relay.http.routing import route
from sessions.api_keys import KeyRegister

MAX_FORM_BYTES = 16_384
WRONG_RESOURCE = "The app asked for a token for another server."
ANYWHERE = {"access-control-allow-origin": "*"}
"""Apps that run in a browser may call these; nothing that a browser keeps lets anybody in."""
PREFLIGHT = {**ANYWHERE, "access-control-allow-methods": "GET, POST", "access-control-allow-headers": "*"}

Handle = Callable[[Request], Awaitable[Response]]


class OAuth:
    """The endpoints."""

    def __init__(
        self, *, access: AccessControl, redis: Redis, register: KeyRegister, public_url: str, first_key: str
    ) -> None:
        self._access = access
        self._codes = Codes(redis)
        self._register = register
        self._public_url = public_url
        self._first_key = first_key
        provider = Provider(codes=self._codes, register=register)
        self._authorize = AuthorizationHandler(provider).handle
        self._take_app = RegistrationHandler(provider, ClientRegistrationOptions(enabled=True)).handle
        self._exchange = TokenHandler(provider, ClientAuthenticator(provider)).handle

    @property
    def routes(self) -> list[Route]:
        """Where apps and their users come to."""
        return [
            route("oauth_resource", self.describe_resource),
            route("oauth_resource_mcp", self.describe_resource),
            route("oauth_server", self.describe_server),
            route("oauth_register", self._open(self._take_app)),
            route("oauth_token", self._open(self._give_token)),
            route("oauth_revoke", self._open(self._revoke)),
            route("oauth_authorize", self.authorize),
            route("show_sign_in", self.show_page),
            route("sign_in", self.sign_in),
        ]

    async def describe_resource(self, request: Request) -> Response:
        """Who gives tokens for /mcp."""
        url = public_url_of(request, public_url=self._public_url)
        return self._answer(
            request,
            {
                "resource": f"{url}{template_of('mcp')}",
                "authorization_servers": [url],
                "bearer_methods_supported": ["header"],
                "resource_name": "session-relay",
            },
        )

    async def describe_server(self, request: Request) -> Response:
        """Where tokens are to be had, and how."""
        url = public_url_of(request, public_url=self._public_url)
        return self._answer(
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
        """Send somebody to the page, or show what is wrong. Nobody is sent to an address of the app's from here:
        anybody can register one, and a link that begins with this relay's address must not lead there by itself."""
        await self._access.count_anonymous(request)
        if not is_own_resource(request, request.query_params.getlist("resource"), public_url=self._public_url):
            return refusal_page(WRONG_RESOURCE, code="invalid_target")
        response = await self._authorize(request)
        location = response.headers.get("location", "")
        if location.startswith(f"{SIGN_IN_PATH}?"):
            return response
        told = dict(parse_qsl(urlsplit(location).query)) if location else msgspec.json.decode(bytes(response.body))
        return refusal_page(told.get("error_description") or "", code=told.get("error", ""), back=location)

    async def show_page(self, request: Request) -> Response:
        """The page."""
        return self._page(request, dict(request.query_params))

    async def sign_in(self, request: Request) -> Response:
        """Send somebody who has given a key back to the app, with a code; others see the page again."""
        await self._access.count_anonymous(request)
        form = dict(parse_qsl((await _read(request)).decode(errors="replace"), keep_blank_values=True))
        given, answer = form.pop("key", "").strip(), form.pop("answer", "")
        page = self._page(request, form)
        if page.status_code != 200:
            return page
        app, redirect_uri = _who(form)
        issuer = public_url_of(request, public_url=self._public_url)
        if answer != "allow":
            back = construct_redirect_uri(redirect_uri, error="access_denied", state=form.get("state"), iss=issuer)
            return _back(back)
        try:
            caller, parent_hash = self._identify(given)
        except RelayError as error:
            return self._page(request, form, error=error.message, status=error.status)
        code = await self._codes.issue(
            Grant(
                client_id=str(app.client_id),
                redirect_uri=redirect_uri,
                explicit="redirect_uri" in form,
                code_challenge=form["code_challenge"],
                resource=form.get("resource"),
                state=form.get("state"),
                parent_hash=parent_hash,
                name=caller.source,
                scopes=caller.scopes,
                session_glob=caller.session_glob,
                expires_at=expiry(),
            )
        )
        return _back(construct_redirect_uri(redirect_uri, code=code, state=form.get("state"), iss=issuer))

    def _identify(self, given: str) -> tuple[Caller, str]:
        """The one who has a key, and the key's hash. Raises Unauthorized, or Unavailable."""
        if given.startswith(OAUTH_PREFIX):
            raise Unauthorized("This is the token of another app; paste an API key.")
        caller = self._access.identify(given)
        return caller, caller.key_hash or hash_key(self._first_key)

    def _page(self, request: Request, asked: dict[str, str], *, error: str = "", status: int = 200) -> Response:
        try:
            app, redirect_uri = _who(asked)
        except ValueError as trouble:
            return refusal_page(str(trouble))
        if not is_own_resource(
            request, [asked["resource"]] if "resource" in asked else [], public_url=self._public_url
        ):
            return refusal_page(WRONG_RESOURCE, code="invalid_target")
        return sign_in_page(
            app=app.client_name or "",
            redirect_uri=redirect_uri,
            relay=public_url_of(request, public_url=self._public_url).partition("://")[2],
            asked=asked,
            error=error,
            status=status,
        )

    async def _give_token(self, request: Request) -> Response:
        """The token for a code. Whoever asks for one for another server gets none."""
        asked = parse_qsl((await request.body()).decode(errors="replace"), keep_blank_values=True)
        resources = [value for name, value in asked if name == "resource"]
        if not is_own_resource(request, resources, public_url=self._public_url):
            refusal = {"error": "invalid_target", "error_description": WRONG_RESOURCE}
            return JsonResponse(refusal, 400)
        response: Response = await self._exchange(request)
        return response

    async def _revoke(self, request: Request) -> Response:
        """Refuse a token from now on. Whoever has it may do so; one that there is not is refused already."""
        token = dict(parse_qsl((await request.body()).decode(errors="replace"))).get("token", "")
        if token.startswith(OAUTH_PREFIX) and has_form_of_key(token):
            try:
                caller = self._access.identify(token)
            except Unauthorized:
                return JsonResponse({})
            await asyncio.to_thread(self._register.revoke, key_id_of(hash_key(token)), by=caller.source)
        return JsonResponse({})

    def _open(self, handle: Handle) -> Handle:
        """An endpoint for apps, which need no key, and may run in a browser."""

        async def take(request: Request) -> Response:
            if request.method == "OPTIONS":
                return Response(status_code=204, headers=PREFLIGHT)
            await self._access.count_anonymous(request)
            response = await handle(_with_body(request, await _read(request)))
            response.headers.update(ANYWHERE)
            return response

        return take

    def _answer(self, request: Request, content: dict[str, Any]) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=PREFLIGHT)
        return JsonResponse(content, headers=ANYWHERE)


def _who(asked: dict[str, str]) -> tuple[clients.App, str]:
    """The app that asks, and where its answer goes. Raises ValueError for what no app would have sent here."""
    app = clients.find(asked.get("client_id", ""))
    if app is None:
        raise ValueError("The app is not known.")
    if not CHALLENGE.fullmatch(asked.get("code_challenge", "")) or len(asked.get("state", "")) > MAX_STATE_LENGTH:
        raise ValueError("What the app asked for is not complete.")
    try:
        named = AnyUrl(asked["redirect_uri"]) if "redirect_uri" in asked else None
        return app, str(app.validate_redirect_uri(named))
    except (ValidationError, InvalidRedirectUriError) as error:
        raise ValueError("The app wants the answer at an address that it has not registered.") from error


async def _read(request: Request) -> bytes:
    """A small body. Raises TooLarge."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_FORM_BYTES:
            raise TooLarge(f"The body has more than {MAX_FORM_BYTES:,} bytes.")
    return body


def _with_body(request: Request, body: bytes) -> Request:
    """The same request for who has yet to read it."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(request.scope, receive)


def _back(url: str) -> Response:
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return RedirectResponse(url, status_code=303, headers=headers)
