"""Serves an app: uvicorn with this product's limits and logging, and a shutdown that answers waiting requests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Sequence

import uvicorn
from starlette.applications import Starlette

from models.process.gc_tuning import collect_seldom
from models.process.log_setup import write_counts, write_last_lines
from models.settings import Settings
from relay.http.access_log import REFUSED_PER_SECOND, AccessLog
from relay.http.connection_limits import MAX_CONNECTIONS, ConnectionRegistry, Timeouts, raise_file_limit
from relay.http.protocol import LimitedHttpProtocol
from relay.process_metrics import CONNECTIONS

KEEP_ALIVE_SECONDS = 75
"""Longer than proxies keep idle connections, so that they close them: no request meets a closing connection."""
SHUTDOWN_SECONDS = 15
POLL_SECONDS = 0.02
LAST_REQUESTS_POLLS = 25
"""Half a second for requests that were on their way when the process stopped listening."""


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
        """End all waiting, then shut down gracefully. Clients that are slow have less time than usual.

        A client may have sent a request before it could see that this process stops. So each connection gets one more
        answer, also those that the kernel has accepted already.
        """
        self._app.state.stopping.set()
        checking = asyncio.create_task(self._keep_checking())
        try:
            self._clients.close_after_answers()
            await self._stop_listening()
            await self._answer_last_requests()
            await super().shutdown(sockets)
        finally:
            checking.cancel()
            write_last_lines()  # Uvicorn ends the process by the signal that it got.

    async def _stop_listening(self) -> None:
        """Close the listening sockets. Connections that wait there would be reset, so take them first."""
        listeners: list[socket.socket] = []
        with contextlib.suppress(OSError):  # No file is free: what waits there is lost, but not what is being answered.
            for listener in [listener for server in self.servers for listener in server.sockets]:
                listeners.append(socket.socket(fileno=os.dup(listener.fileno())))
        for server in self.servers:
            server.close()
        waiting: list[socket.socket] = []
        for listener in listeners:  # Open until the end of this loop: the server has closed its copies only.
            listener.setblocking(False)
            with contextlib.suppress(OSError):
                while True:
                    waiting.append(listener.accept()[0])
            listener.close()
        loop = asyncio.get_running_loop()
        for connection in waiting:
            connection.setblocking(False)
            with contextlib.suppress(OSError):  # The client has gone.
                await loop.connect_accepted_socket(self._create_protocol, connection)

    def _create_protocol(self) -> asyncio.Protocol:
        return LimitedHttpProtocol(self.config, self.server_state, self.lifespan.state)

    async def _answer_last_requests(self) -> None:
        """Let idle connections send the request that is on its way, for half a second at most."""
        for _ in range(LAST_REQUESTS_POLLS):
            # First, because connections that were accepted a moment ago are registered by the loop's next turns.
            await asyncio.sleep(POLL_SECONDS)
            if not self._clients.has_idle():
                break

    async def _keep_checking(self) -> None:
        while True:
            self._check_clients()
            await asyncio.sleep(self._clients.timeouts.check_seconds)

    def _check_clients(self) -> None:
        elapsed_seconds = time.monotonic() - self._looked_at
        if elapsed_seconds >= self._clients.timeouts.check_seconds:
            self._looked_at += elapsed_seconds
            self._clients.close_overdue(elapsed_seconds)
            write_counts()


def serve(app: Starlette, settings: Settings, *, sockets: Sequence[socket.socket] = ()) -> None:
    """Serve until SIGINT or SIGTERM, on these sockets or else on HOST and PORT. Requests in flight are answered, and
    waiting ones at once."""
    collect_seldom()
    limit = min(raise_file_limit(), settings.part_of(MAX_CONNECTIONS))
    clients = ConnectionRegistry(
        limit=limit,
        timeouts=Timeouts(),
        record_rejection=app.state.record_rejection,
        access_log=AccessLog(refused_per_second=settings.part_of(REFUSED_PER_SECOND)),
    )
    app.state.metrics.show(CONNECTIONS, lambda: len(clients.connections))
    with contextlib.suppress(KeyboardInterrupt):  # Uvicorn raises it after a graceful shutdown.
        RelayServer(app, settings, clients=clients).run(list(sockets) or None)


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
