"""Signs visitors in with an API key, and out."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.oauth.form_bodies import read_form
from api.pages.browser_sessions import BrowserSessions
from api.pages.rendering import HEADERS
from api.pages.visitors import Form, Visitor, Visitors, own_path, parse_form
from models.access.api_keys import OAUTH_PREFIX, hash_key
from models.errors import Forbidden, RelayError, Unauthorized
from models.routes import path_to
from relay.auth.access_control import AccessControl
from relay.auth.authentication import require_scope
from relay.http.responses import RecordRejection
from relay.http.routing import route

SAFE_IN_LOCATION = "/?&=%:@!$'()*+,;~"


class SignIn:
    """The endpoints."""

    def __init__(
        self,
        *,
        access: AccessControl,
        visitors: Visitors,
        sessions: BrowserSessions,
        record_rejection: RecordRejection,
    ) -> None:
        self._access = access
        self._visitors = visitors
        self._sessions = sessions
        self._record_rejection = record_rejection

    @property
    def routes(self) -> list[Route]:
        """The routes for signing in and out."""
        return [
            route("page_sign_in", self.sign_in),
            route("page_sign_out", self._visitors.form(self.sign_out)),
        ]

    async def sign_in(self, request: Request) -> Response:
        """Check the key, and lead to the page that was asked for. Wrong keys are counted by address, and recorded as
        rejections like wrong keys elsewhere."""
        await self._access.count_anonymous(request)
        self._visitors.require_own_origin(request)
        form = parse_form(await read_form(request))
        key, next_url = form.get("key", "").strip(), own_path(form.get("next", ""))
        try:
            self._check(key)
        except (Unauthorized, Forbidden) as error:
            self._record_rejection(request.scope, error)
            return self._refuse(request, error, next_url)
        session = await self._sessions.start(hash_key(key))
        response = redirect(next_url)
        self._visitors.set_cookie(request, response, session)
        return response

    async def sign_out(self, request: Request, visitor: Visitor, _: Form) -> Response:
        """End the session in this browser."""
        await self._sessions.end(visitor.session)
        response = redirect(path_to("index"))
        self._visitors.delete_cookie(request, response)
        return response

    def _check(self, key: str) -> None:
        """Raise Unauthorized or Forbidden unless it is a key with which pages can be shown, or Unavailable."""
        if key.startswith(OAUTH_PREFIX):
            raise Unauthorized("This is a token of an app. Enter an API key instead.")
        require_scope(self._access.identify(key), "read")

    def _refuse(self, request: Request, error: RelayError, next_url: str) -> Response:
        return self._visitors.sign_in_page(request, error=error.message, status=error.status, next_url=next_url)


def redirect(url: str) -> Response:
    """Return a redirect of a browser that has posted a form. Paths of this relay only."""
    return Response(status_code=303, headers={**HEADERS, "Location": quote(url, safe=SAFE_IN_LOCATION)})
