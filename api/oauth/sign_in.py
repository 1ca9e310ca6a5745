"""Signing in: registers apps, shows the sign-in page, issues codes, and exchanges them for tokens.

It imports the SDK, which takes long: it is for `Deferred`.
"""

from __future__ import annotations

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

from api.oauth import clients
from api.oauth.codes import Codes, Grant, expiry
from api.oauth.form_bodies import read_form
from api.oauth.provider import CHALLENGE, MAX_STATE_LENGTH, SIGN_IN_PATH, Provider
from api.oauth.resource_indicators import is_own_resource
from api.oauth.sign_in_page import refusal_page, sign_in_page
from api.public_url import public_url_of
from models.access.api_keys import OAUTH_PREFIX, hash_key
from models.errors import RelayError, Unauthorized
from relay.auth.access_control import AccessControl
from relay.auth.authentication import Caller
from relay.http.responses import JsonResponse
from sessions.api_keys import KeyRegister

WRONG_RESOURCE = "The app requested a token for another server."


class SignIn:
    """The endpoints by which an app gets a token."""

    def __init__(
        self, *, access: AccessControl, redis: Redis, register: KeyRegister, public_url: str, first_key: str
    ) -> None:
        self._access = access
        self._codes = Codes(redis)
        self._public_url = public_url
        self._first_key = first_key
        provider = Provider(codes=self._codes, register=register)
        self._authorize = AuthorizationHandler(provider).handle
        self._register = RegistrationHandler(provider, ClientRegistrationOptions(enabled=True)).handle
        self._exchange = TokenHandler(provider, ClientAuthenticator(provider)).handle

    async def register(self, request: Request) -> Response:
        """Register an app."""
        response: Response = await self._register(request)
        return response

    async def authorize(self, request: Request) -> Response:
        """Redirect the user to the sign-in page, or show an error page. Never redirects to the app from here: anybody
        can register a redirect URI, so a link to this relay must not become an open redirect."""
        await self._access.count_anonymous(request)
        if not is_own_resource(request, request.query_params.getlist("resource"), public_url=self._public_url):
            return refusal_page(WRONG_RESOURCE, code="invalid_target")
        response = await self._authorize(request)
        location = response.headers.get("location", "")
        if location.startswith(f"{SIGN_IN_PATH}?"):
            return response
        error = dict(parse_qsl(urlsplit(location).query)) if location else msgspec.json.decode(bytes(response.body))
        return refusal_page(error.get("error_description") or "", code=error.get("error", ""), back=location)

    async def show_page(self, request: Request) -> Response:
        """Show the sign-in page."""
        return self._page(request, dict(request.query_params))

    async def sign_in(self, request: Request) -> Response:
        """Check the key and redirect the user to the app with a code. Shows the page again for an invalid key."""
        await self._access.count_anonymous(request)
        form = dict(parse_qsl((await read_form(request)).decode(errors="replace"), keep_blank_values=True))
        key, answer = form.pop("key", "").strip(), form.pop("answer", "")
        page = self._page(request, form)
        if page.status_code != 200:
            return page
        app, redirect_uri = _find_app(form)
        issuer = public_url_of(request, public_url=self._public_url)
        if answer != "allow":
            back = construct_redirect_uri(redirect_uri, error="access_denied", state=form.get("state"), iss=issuer)
            return _redirect(back)
        try:
            caller, parent_hash = self._identify(key)
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
        return _redirect(construct_redirect_uri(redirect_uri, code=code, state=form.get("state"), iss=issuer))

    def _identify(self, key: str) -> tuple[Caller, str]:
        """Return the caller of a key, and the key's hash. Raises Unauthorized or Unavailable."""
        if key.startswith(OAUTH_PREFIX):
            raise Unauthorized("This is a token of another app. Paste an API key instead.")
        caller = self._access.identify(key)
        return caller, caller.key_hash or hash_key(self._first_key)

    def _page(self, request: Request, parameters: dict[str, str], *, error: str = "", status: int = 200) -> Response:
        try:
            app, redirect_uri = _find_app(parameters)
        except ValueError as error_of_app:
            return refusal_page(str(error_of_app))
        if not is_own_resource(
            request, [parameters["resource"]] if "resource" in parameters else [], public_url=self._public_url
        ):
            return refusal_page(WRONG_RESOURCE, code="invalid_target")
        return sign_in_page(
            app=app.client_name or "",
            redirect_uri=redirect_uri,
            relay=public_url_of(request, public_url=self._public_url).partition("://")[2],
            parameters=parameters,
            error=error,
            status=status,
        )

    async def issue_token(self, request: Request) -> Response:
        """Exchange a code for a token. Refuses requests for another server's token."""
        form = parse_qsl((await request.body()).decode(errors="replace"), keep_blank_values=True)
        resources = [value for name, value in form if name == "resource"]
        if not is_own_resource(request, resources, public_url=self._public_url):
            refusal = {"error": "invalid_target", "error_description": WRONG_RESOURCE}
            return JsonResponse(refusal, 400)
        response: Response = await self._exchange(request)
        return response


def _find_app(parameters: dict[str, str]) -> tuple[clients.App, str]:
    """Return the requesting app and its redirect URI. Raises ValueError for an invalid request."""
    app = clients.find(parameters.get("client_id", ""))
    if app is None:
        raise ValueError("The app is not registered: its client_id is invalid.")
    if (
        not CHALLENGE.fullmatch(parameters.get("code_challenge", ""))
        or len(parameters.get("state", "")) > MAX_STATE_LENGTH
    ):
        raise ValueError("The app's request is incomplete: its code_challenge or state is invalid.")
    try:
        named = AnyUrl(parameters["redirect_uri"]) if "redirect_uri" in parameters else None
        return app, str(app.validate_redirect_uri(named))
    except (ValidationError, InvalidRedirectUriError) as error:
        raise ValueError("The app's redirect_uri is not registered.") from error


def _redirect(url: str) -> Response:
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return RedirectResponse(url, status_code=303, headers=headers)
