"""Serves an app: uvicorn with this product's limits and logging, and a shutdown that answers waiting requests."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette

from models.errors import SettingsError
from models.process.gc_tuning import collect_seldom
from models.process.log_setup import configure_logging, write_last_lines
from models.process.parent_death import exit_with_parent
from models.settings import Settings, read_settings
from relay.http.connection_limits import ConnectionRegistry, Timeouts, raise_file_limit
from relay.http.protocol import LimitedHttpProtocol

KEEP_ALIVE_SECONDS = 75
"""Longer than proxies keep idle connections, so that they close them: no request meets a closing connection."""
SHUTDOWN_SECONDS = 15


class RelayServer(uvicorn.Server):
    """Serves an app to these clients. Setting the app's event `state.stopping` ends all waiting."""

    def __init__(self, app: Starlette, settings: Settings, *, clients: ConnectionRegistry) -> None:
        super().__init__(_configure(app, settings))
        self.server_state = clients
        self._app = app
        self._clients = clients
        self._looked_at = time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        """Check the connections; uvicorn calls it ten times a second."""
        self._check_clients()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End all waiting, then shut down gracefully. A body that is still arriving has less time than usual."""
        self._app.state.stopping.set()
        checking = asyncio.create_task(self._keep_checking())
        try:
            await super().shutdown(sockets)
        finally:
            checking.cancel()
            write_last_lines()  # Uvicorn ends the process by the signal that it got.

    async def _keep_checking(self) -> None:
        while True:
            self._check_clients()
            await asyncio.sleep(self._clients.timeouts.check_seconds)

    def _check_clients(self) -> None:
        elapsed_seconds = time.monotonic() - self._looked_at
        if elapsed_seconds >= self._clients.timeouts.check_seconds:
            self._looked_at += elapsed_seconds
            self._clients.close_overdue(elapsed_seconds)


def main(create: Callable[[Settings], Starlette]) -> int:
    """Read the settings and serve the app until stopped. Returns 2 for invalid settings."""
    exit_with_parent()
    try:
        settings = read_settings()
        configure_logging(settings)
        app = create(settings)
    except SettingsError as error:
        print(f"session-relay: {error.message}", file=sys.stderr)
        return 2
    serve(app, settings)
    return 0


def serve(app: Starlette, settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Requests in flight are answered, waiting ones at once."""
    collect_seldom()
    clients = ConnectionRegistry(
        limit=raise_file_limit(), timeouts=Timeouts(), record_rejection=app.state.record_rejection
    )
    with contextlib.suppress(KeyboardInterrupt):  # Uvicorn raises it after a graceful shutdown.
        RelayServer(app, settings, clients=clients).run()


def _configure(app: Starlette, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=LimitedHttpProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
