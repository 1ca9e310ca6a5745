"""The relay as an ASGI app by itself, and how any of our apps is put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from models.settings import Settings
from relay.health import health_routes
from relay.ingest import Ingest
from relay.responses import EXCEPTION_HANDLERS, BugBarrier

INGEST_LINKS = {
    "webhook": "/v1/webhook",
    "commands": "/v1/commands/{command}",
    "health": "/healthz",
    "readiness": "/readyz",
}


def create_relay(settings: Settings) -> Starlette:
    """The ingest alone. Raises SettingsError if it cannot be started with these settings."""
    ingest = Ingest(settings)
    routes = [*health_routes(ingest.redis, links=INGEST_LINKS), *ingest.routes]
    return assemble(routes, ingest, running=ingest.running())


def assemble(routes: Sequence[BaseRoute], ingest: Ingest, *, running: AbstractAsyncContextManager[Any]) -> Starlette:
    """An app with these routes that answers all errors in the usual form, and is `running` while it is served.

    Its `state.stopping` is the event by which a server ends all waiting.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with running:
            yield

    app = Starlette(
        routes=routes, middleware=[Middleware(BugBarrier)], exception_handlers=EXCEPTION_HANDLERS, lifespan=lifespan
    )
    app.router.redirect_slashes = False  # A redirected POST arrives nowhere with most clients.
    app.state.stopping = ingest.stopping
    return app
