"""Access control for every request: authenticates the caller, checks its scope, and counts it against its limits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Receive

from models.errors import Unauthorized, Unavailable
from models.field_types import Scope
from models.settings import Settings
from relay.auth.api_key_cache import ApiKeyCache
from relay.auth.authentication import Authenticator, Caller, require_all_sessions, require_scope
from relay.auth.revocations import RevocationWatch
from relay.http.bodies import LargeBodies, read_body
from relay.http.client_addresses import network_of
from relay.http.waiting import client_disconnect
from relay.limits.request_rates import RequestRates

RequestState = MutableMapping[str, Any]
"""The state in a request's scope: the sender's name, and its remaining quota."""
Authenticate = Callable[[bytes], Awaitable[Caller]]
"""Authenticates the body of a request with checked headers, and counts its bytes."""


class AccessControl:
    """Admits requests, or raises the error that rejects them."""

    def __init__(self, settings: Settings, key_cache: ApiKeyCache, rates: RequestRates) -> None:
        """Raises SettingsError without any credential, or for an invalid secret."""
        self._authenticator = Authenticator(settings, key_cache)
        self._rates = rates
        self._revocations = RevocationWatch(self._is_revoked)
        self.large_bodies = LargeBodies()
        """Turns for decoding large bodies, shared by all endpoints with bodies."""

    async def run(self) -> None:
        """Watch the keys of waiting callers for revocation, until cancelled."""
        await self._revocations.run()

    async def authorize(self, request: Request, scope: Scope) -> Caller:
        """Returns the caller whose key the request carries, if it has the scope. Raises Unauthorized, Forbidden,
        TooManyRequests, or Unavailable while keys cannot be checked."""
        caller = await self.authenticate(request)
        require_scope(caller, scope)
        return caller

    async def authenticate(self, request: Request) -> Caller:
        """Returns the caller whose key the request carries, whatever its scopes. Raises as `authorize` does."""
        return await self._count(
            request.scope.setdefault("state", {}), self._authenticator.authenticate(request.headers)
        )

    async def authorize_scraper(self, request: Request) -> None:
        """Check that the request carries METRICS_KEY, or a key for all sessions with the scope `admin`. Raises as
        `authorize` does."""
        scraper = self._authenticator.find_scraper(request.headers)
        if scraper is not None:
            await self._count(request.scope.setdefault("state", {}), scraper)
        else:
            require_all_sessions(await self.authorize(request, "admin"))

    async def read_body(self, request: Request, caller: Caller, *, limit: int, takes_forms: bool = False) -> bytes:
        """Reads the body of an authenticated request. Raises TooLarge and the like, or TooManyRequests if the sender is
        over its limit of bytes."""
        body = await read_body(request.headers, request.receive, limit=limit, takes_forms=takes_forms)
        await self._rates.hit_bytes(caller.source, len(body))
        return body

    async def authenticate_with_body(self, headers: Headers, state: RequestState) -> Authenticate:
        """Checks the headers; returns a callable that authenticates the body. Both raise as `authorize` does.

        A key is checked before the body is read; a signature can only be checked against the body.
        """
        signature = self._authenticator.signature_of(headers)
        if signature is None:
            return self._known_caller(await self._count(state, self._authenticator.find_key(headers)))

        async def finish(body: bytes) -> Caller:
            caller = await self._count(state, self._authenticator.find_signer(signature, body))
            await self._rates.hit_bytes(caller.source, len(body))
            return caller

        return finish

    def find_ready(self, headers: Headers, size: int) -> Caller | None:
        """Returns the caller whose key an unsigned request carries, or None if this process has no quota in hand for
        such a request with a body of this size. Counts nothing. Raises Unauthorized, or Unavailable."""
        if self._authenticator.signature_of(headers) is not None:
            return None
        caller = self._authenticator.find_key(headers)
        return caller if self._rates.holds(caller.source, size) else None

    def count_ready(self, caller: Caller, size: int, state: RequestState) -> bool:
        """Count the request of a ready caller; returns whether its quota was still in hand."""
        state["source"] = caller.source
        return self._rates.spend(caller.source, size, state)

    def identify(self, key: str) -> Caller:
        """Returns the caller that this key belongs to. Raises Unauthorized, or Unavailable."""
        return self._authenticator.identify(key)

    async def resume(self, request: Request, key_hash: str) -> Caller:
        """Returns the caller of the API key with this hash, who has shown the key before, and counts the request.
        Raises Unauthorized if the key was revoked meanwhile, TooManyRequests, or Unavailable."""
        return await self._count(request.scope.setdefault("state", {}), self._authenticator.find_by_hash(key_hash))

    async def count_anonymous(self, request: Request) -> None:
        """Count a request that needs no key, by its client address. Raises TooManyRequests."""
        await self._rates.hit_anonymous(network_of(request.state.address))

    async def authenticate_token_webhook(self, token: str, state: RequestState) -> Authenticate:
        """As `authenticate_with_body`, for the token in a webhook's URL. Raises NotFound, or Unavailable."""
        return self._known_caller(await self._count(state, self._authenticator.find_hook(token)))

    def require_valid(self, caller: Caller) -> None:
        """Raise Unauthorized if the caller's key was revoked meanwhile, or Unavailable."""
        self._authenticator.require_valid(caller)

    def watch_revocation(self, caller: Caller, call: Callable[[], object]) -> contextlib.AbstractContextManager[None]:
        """Within the block, call `call` within a second after the caller's key is known to be revoked."""
        return self._revocations.watch(caller, call)

    @contextlib.contextmanager
    def watch_caller(self, receive: Receive, caller: Caller) -> Iterator[asyncio.Future[None]]:
        """Gives a future that is done when nobody is left to answer: the caller disconnected, or its key was revoked.
        The body must have been read."""
        with client_disconnect(receive) as gone, self.watch_revocation(caller, gone.cancel):
            yield gone

    def require_not_revoked(self, caller: Caller) -> None:
        """Raise Unauthorized if the key of a caller that has waited is known to be revoked."""
        with contextlib.suppress(Unavailable):
            self._authenticator.require_valid(caller)

    def _is_revoked(self, caller: Caller) -> bool:
        try:
            self.require_not_revoked(caller)
        except Unauthorized:
            return True
        return False

    async def _count(self, state: RequestState, caller: Caller) -> Caller:
        state["source"] = caller.source
        await self._rates.hit(caller.source, state)
        return caller

    def _known_caller(self, caller: Caller) -> Authenticate:
        async def finish(body: bytes) -> Caller:
            if not self._rates.spend_bytes(caller.source, len(body)):
                await self._rates.hit_bytes(caller.source, len(body))
            return caller

        return finish
