"""The relay alone as an ASGI app, and the assembly of every app of the product."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from models.routes import template_of
from models.settings import Settings, parse_networks
from relay.health import health_routes
from relay.http.client_addresses import IpAllowlist, IpAllowlistMiddleware
from relay.http.expect_continue import ExpectContinueMiddleware
from relay.http.path_normalization import PathNormalizationMiddleware
from relay.http.query_parameters import ParameterLimitMiddleware
from relay.http.responses import ServerErrorMiddleware, exception_handlers
from relay.ingest.endpoints import Ingest
from relay.ingest.fast_path import FastPath
from relay.limits.request_rates import RateLimitHeadersMiddleware
from relay.rejections import rejection_routes

INGEST_LINKS = {
    "webhook": template_of("webhook"),
    "commands": template_of("command"),
    "health": template_of("health"),
    "readiness": template_of("readiness"),
}


class RelayApp(Starlette):
    """A Starlette app that leaves ordinary webhooks and commands to the fast path."""

    fast_path: FastPath

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if accept := self.fast_path.find(scope):
            await self.fast_path.answer(accept, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def answer_at_once(self, scope: Scope, body: bytes, run: Callable[[ASGIApp], None]) -> bool:
        """Answer a request that has arrived in whole without a task; see `FastPath`."""
        return self.fast_path.answer_at_once(scope, body, run)


def create_relay(settings: Settings) -> RelayApp:
    """Returns the app for ingest alone. Raises SettingsError for settings with which it cannot start."""
    ingest = Ingest(settings)
    routes = [
        *health_routes(ingest, links=INGEST_LINKS),
        *ingest.routes,
        *rejection_routes(ingest.rejections, access=ingest.access),
    ]
    return assemble(routes, ingest, settings=settings, running=ingest.running())


def assemble(
    routes: Sequence[BaseRoute],
    ingest: Ingest,
    *,
    settings: Settings,
    running: AbstractAsyncContextManager[Any],
    outer: Sequence[Middleware] = (),
) -> RelayApp:
    """Returns an app with these routes that answers errors in the usual form and keeps `running` while it is served.
    `outer` is middleware around all other.

    A server sets the event `state.stopping` to end all waiting, calls `state.record_rejection` for requests that it
    rejects itself, and shows the number of its connections in `state.metrics`.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with running:
            yield

    record = ingest.record_error
    allowlist = IpAllowlist(parse_networks(settings.allowed_ips), proxy_header=settings.trusted_proxy_header)
    app = RelayApp(
        routes=routes,
        middleware=[
            *outer,
            Middleware(PathNormalizationMiddleware),
            Middleware(ExpectContinueMiddleware),
            Middleware(RateLimitHeadersMiddleware),
            Middleware(ServerErrorMiddleware, record_rejection=record),
            Middleware(IpAllowlistMiddleware, allowlist=allowlist, record_rejection=record),
            Middleware(ParameterLimitMiddleware, record_rejection=record),
        ],
        exception_handlers=exception_handlers(record),
        lifespan=lifespan,
    )
    app.fast_path = FastPath(ingest, allowlist=allowlist, record_rejection=record)
    app.router.redirect_slashes = False  # Most clients lose a POST that is redirected.
    app.state.stopping = ingest.stopping
    app.state.record_rejection = record
    app.state.metrics = ingest.metrics
    return app
