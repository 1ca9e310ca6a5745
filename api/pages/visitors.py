"""Who looks at a page: finds the caller by the cookie, and accepts forms only from the visitor's own pages."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl, urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api.pages.browser_sessions import IDLE_SECONDS, BrowserSession, BrowserSessions
from api.pages.rendering import render
from api.public_url import public_url_of
from models.errors import Forbidden, Invalid, Unauthorized
from models.routes import path_to
from relay.auth.access_control import AccessControl
from relay.auth.authentication import Caller
from relay.http.content_negotiation import accepts_html
from relay.http.routing import Handler

MAX_FIELDS = 50
OWN_PATH = re.compile(r"/(?:$|\?|(?:sessions|deliveries|dead-letters|keys|hooks|refusals|agents|status)(?:$|[/?]))")
"""The beginning of the URLs of pages."""
MAX_NEXT_LENGTH = 2_000
"""Characters of the URL to return to after signing in."""


class Visitor(msgspec.Struct, frozen=True, kw_only=True):
    """A person whose browser is signed in."""

    caller: Caller
    session: BrowserSession

    @property
    def form_token(self) -> str:
        """The token for forms."""
        return self.session.form_token


Form = dict[str, str]
PageHandler = Callable[[Request, Visitor], Awaitable[Response]]
FormHandler = Callable[[Request, Visitor, Form], Awaitable[Response]]


class Visitors:
    """Wraps the handlers of pages and forms."""

    def __init__(
        self, *, access: AccessControl, sessions: BrowserSessions, public_url: str, max_body_bytes: int
    ) -> None:
        self._access = access
        self._sessions = sessions
        self._public_url = public_url
        self._max_body_bytes = max_body_bytes

    def page(self, handle: PageHandler) -> Handler:
        """Return a handler that shows the page to visitors, and others how to sign in."""

        async def respond(request: Request) -> Response:
            visitor = await self._find(request)
            if visitor is None:
                if not accepts_html(request.headers):
                    raise Unauthorized("This is a page for browsers.", hint=f"Programs use {path_to('read_sessions')}.")
                is_home = request.url.path == path_to("index")
                return self.sign_in_page(request, status=200 if is_home else 401)
            return await handle(request, visitor)

        return respond

    def form(self, handle: FormHandler) -> Handler:
        """Return a handler for a form of a visitor's page. Raises Forbidden for one from elsewhere."""

        async def respond(request: Request) -> Response:
            self.require_own_origin(request)
            visitor = await self._find(request)
            if visitor is None:
                raise Unauthorized("You are signed out. Sign in, and send the form again.")
            body = await self._access.read_body(request, visitor.caller, limit=self._max_body_bytes, takes_forms=True)
            form = parse_form(body)
            if not visitor.session.owns(form.pop("form_token", "")):
                raise Forbidden("The form is not from a page of this browser. Reload the page, and try again.")
            return await handle(request, visitor, form)

        return respond

    def require_own_origin(self, request: Request) -> None:
        """Raise Forbidden unless a page of this relay sent the request, as far as the browser says where from. Old
        browsers, which say nothing, are refused."""
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        own = urlsplit(public_url_of(request, public_url=self._public_url)).netloc
        hosts = {own, request.headers.get("host", "")}
        is_own = site == "same-origin" if site is not None else origin is not None
        if origin is not None:
            is_own = is_own and urlsplit(origin).netloc in hosts - {""}
        if not is_own:
            raise Forbidden("The request comes from another site's page, or has no Origin header.")

    def sign_in_page(self, request: Request, *, error: str = "", status: int = 200, next_url: str = "") -> Response:
        """Return the sign-in page, which leads back to the page that was asked for."""
        if not next_url and request.method in ("GET", "HEAD"):
            next_url = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
        relay = public_url_of(request, public_url=self._public_url).partition("://")[2]
        response = render("sign_in.html", status=status, relay=relay, error=error, next_url=own_path(next_url))
        if self.cookie_name(request) in request.cookies:
            self.delete_cookie(request, response)
        return response

    def cookie_name(self, request: Request) -> str:
        """Return the name of the cookie. With the prefix, browsers accept it only over TLS and for all paths."""
        return "__Host-session-relay" if self._is_secure(request) else "session-relay"

    def set_cookie(self, request: Request, response: Response, session: BrowserSession) -> None:
        """Give the browser its cookie."""
        response.set_cookie(
            self.cookie_name(request),
            session.token,
            max_age=IDLE_SECONDS,
            secure=self._is_secure(request),
            httponly=True,
            samesite="lax",
        )

    def delete_cookie(self, request: Request, response: Response) -> None:
        """Take the cookie away."""
        secure = self._is_secure(request)
        response.delete_cookie(self.cookie_name(request), secure=secure, httponly=True, samesite="lax")

    async def _find(self, request: Request) -> Visitor | None:
        """Return the visitor, or None if the browser is not signed in or its key is revoked. Raises TooManyRequests
        for one address with many wrong cookies, or Unavailable."""
        token = request.cookies.get(self.cookie_name(request))
        if not token:
            return None
        session = await self._sessions.find(token)
        if session is None:
            await self._access.count_anonymous(request)
            return None
        try:
            caller = await self._access.resume(request, session.key_hash)
        except Unauthorized:
            await self._sessions.end(session)
            return None
        return Visitor(caller=caller, session=session)

    def _is_secure(self, request: Request) -> bool:
        return public_url_of(request, public_url=self._public_url).startswith("https://")


def parse_form(body: bytes) -> Form:
    """Parse a form; of a repeated field the last value counts. Raises Invalid."""
    try:
        return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError as error:
        raise Invalid("The form has too many fields.") from error


def own_path(url: str) -> str:
    """Return the URL if it is a path of this relay's pages, or else the first page."""
    is_own = OWN_PATH.match(url) is not None and len(url) <= MAX_NEXT_LENGTH and "\\" not in url
    return url if is_own else path_to("index")
