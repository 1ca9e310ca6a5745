"""Serving an app: uvicorn with our limits and logging, and an end that answers everybody who still waits."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette

from models.errors import SettingsError
from models.lifeline import hold_lifeline
from models.logs import configure_logging
from models.settings import Settings, read_settings
from relay.protocol import BoundedProtocol

KEEP_ALIVE_SECONDS = 75
"""Longer than proxies keep idle connections, so that it is they who close them: a request never meets a closing one."""
SHUTDOWN_SECONDS = 15


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: Starlette) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.stopping.set()
        await super().shutdown(sockets)


def main(create: Callable[[Settings], Starlette]) -> int:
    """Read the settings and serve the app they make until told to stop; 2 if the settings do not allow it."""
    hold_lifeline()
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
    """Serve until SIGINT or SIGTERM. Requests in flight are answered, those that wait at once."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    with contextlib.suppress(KeyboardInterrupt):  # Raised by uvicorn after it has shut down in an orderly way.
        _Server(config, app).run()
