"""A real HTTP server with short timeouts, in a thread of the test, around an app that shows what the server passes
on."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Scope

from models.errors import RelayError, Unauthorized
from models.settings import Settings
from relay.http.bodies import read_body
from relay.http.connection_limits import ConnectionRegistry, Timeouts
from relay.http.responses import JsonResponse, exception_handlers
from relay.http.server import RelayServer
from tests.support.ports import free_port
from tests.support.processes.stack import wait_for

BODY_LIMIT = 1_048_576
LARGE = b"x" * 50_000_000
"""A size larger than the system's buffers for one connection."""


class Edge:
    """The server. Its app accepts bodies at /body, returns the headers after a body at /headers, refuses bodies unread
    at /refuse, responds at /wait once `released` is set, sends without end at /stream, and sends a large response at
    /large."""

    def __init__(self, timeouts: Timeouts, *, limit: int = 100, keep_alive_seconds: int = 75) -> None:
        self.noted: list[tuple[Scope, RelayError]] = []
        self.waiting = 0
        self.streaming = 0
        self.port = free_port()
        app = Starlette(
            routes=[
                Route("/body", self._body, methods=["POST"]),
                Route("/headers", self._headers, methods=["POST"]),
                Route("/refuse", self._refuse, methods=["POST"]),
                Route("/wait", self._wait),
                Route("/stream", self._stream),
                Route("/large", self._large),
            ],
            exception_handlers=exception_handlers(lambda scope, error: self.noted.append((scope, error))),
        )
        app.state.stopping = asyncio.Event()
        self._released = asyncio.Event()
        self.clients = ConnectionRegistry(
            limit=limit, timeouts=timeouts, record_rejection=lambda scope, error: self.noted.append((scope, error))
        )
        self._server = RelayServer(app, Settings(port=self.port), clients=self.clients)
        self._server.config.timeout_keep_alive = keep_alive_seconds
        self._server.config.timeout_graceful_shutdown = 1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        wait_for(lambda: self._server.started, what="serving")

    def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()

    def __enter__(self) -> Edge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stop_when(self, waiting: threading.Event, may_stop: threading.Event, *, turns: int = 0) -> None:
        """Let the server's loop stand still until `may_stop`, after setting `waiting`, and stop the server so many
        turns later."""

        async def on_tick(_: int) -> bool:
            waiting.set()
            may_stop.wait(20)
            for _turn in range(turns):
                await asyncio.sleep(0)
            return True

        self._server.on_tick = on_tick  # type: ignore[method-assign,assignment]

    def is_refusing(self) -> bool:
        """Return whether the server has stopped listening."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=20).close()
        except ConnectionRefusedError:
            return True
        return False

    def connect(self, data: bytes = b"", *, receive_buffer: int | None = None) -> socket.socket:
        """Open a connection and send these bytes."""
        connection = socket.socket()
        connection.settimeout(20)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect(("127.0.0.1", self.port))
        connection.sendall(data)
        return connection

    def release(self) -> None:
        """Respond to all waiting requests."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._released.set)

    async def _body(self, request: Request) -> Response:
        return JsonResponse({"size": len(await read_body(request.headers, request.receive, limit=BODY_LIMIT))})

    async def _headers(self, request: Request) -> Response:
        await request.body()
        return JsonResponse(dict(request.headers))

    async def _refuse(self, _: Request) -> Response:
        raise Unauthorized

    async def _wait(self, _: Request) -> Response:
        self._loop = asyncio.get_running_loop()
        self.waiting += 1
        await self._released.wait()
        return JsonResponse({"waited": True})

    async def _stream(self, _: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            self.streaming += 1
            try:
                while True:
                    yield b"data: " + b"x" * 10_000 + b"\n\n"
                    await asyncio.sleep(0)
            finally:
                self.streaming -= 1

        return StreamingResponse(parts(), media_type="text/event-stream")

    async def _large(self, _: Request) -> Response:
        return Response(LARGE)
