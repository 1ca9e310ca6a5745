"""Serving an app: uvicorn with our limits and logging, and an end that answers everybody who still waits."""

from __future__ import annotations

import contextlib
import socket

import uvicorn
from starlette.applications import Starlette

from models.settings import Settings
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
