"""The gate that each request passes: who calls, what it may do, and whether it may do more of it now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request

from models.settings import Settings
from models.vocabulary import Scope
from relay.authentication import Authenticator, Caller, require_scope


class Gate:
    """Lets requests in, or raises what keeps them out."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError without any credential, or for secrets that are none."""
        self._authenticator = Authenticator(settings)

    async def admit(self, request: Request, scope: Scope) -> Caller:
        """The caller whose key the request carries, if it has the scope. Raises Unauthorized or Forbidden."""
        caller = self._authenticator.authenticate(request.headers)
        require_scope(caller, scope)
        return caller

    async def begin(self, request: Request) -> Callable[[bytes], Awaitable[Caller]]:
        """Check what the headers show, and give what tells the caller from the body, which both raise Unauthorized."""
        tell_caller = self._authenticator.begin(request.headers)

        async def finish(body: bytes) -> Caller:
            return tell_caller(body)

        return finish
