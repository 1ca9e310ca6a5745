"""The events of the Python client, against servers that are no relay, and readers that stop."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from session_relay import AsyncClient, Client, Unavailable

EVENT = {"cursor": "1.1", "event": "create_session", "message": "Started.", "at": "2026-11-22T14:03:27Z"}


class Quiet(ThreadingHTTPServer):
    """Streams one event, and then only comments, until its client is gone. Elsewhere it redirects."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.left = threading.Event()
        self.asked = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Quiet

    def do_GET(self) -> None:
        self.server.asked += 1
        if "/quiet/" not in self.path:
            # Who comes again gets no redirect, but is told that the key is wrong.
            self.send_response(302 if self.server.asked == 1 else 401)
            self.send_header("Location", "https://elsewhere.example/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._write(b"id: 1.1\ndata: " + json.dumps(EVENT).encode() + b"\n\n")
        try:
            while not self.server.left.wait(0.02):
                self._write(b": still here\n\n")
        except OSError:
            self.server.left.set()
        self.close_connection = True

    def _write(self, part: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Quiet]:
    server = Quiet()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.left.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", ["events", "tasks"])
def test_what_is_no_relay_is_not_asked_for_ever(server: Quiet, name: str) -> None:
    with Client(server.url, "srk_key") as client, pytest.raises(Unavailable, match="redirects"):
        next(getattr(client, name)("solar"))
    assert server.asked == 1


@pytest.mark.parametrize("name", ["events", "tasks"])
def test_nor_is_it_by_coroutines(server: Quiet, name: str) -> None:
    async def read_one() -> None:
        async with AsyncClient(server.url, "srk_key") as client:
            await anext(getattr(client, name)("solar"))

    with pytest.raises(Unavailable, match="redirects"):
        asyncio.run(read_one())
    assert server.asked == 1


def test_both_clients_have_the_same_methods() -> None:
    once, awaited = ({name for name in dir(kind) if not name.startswith("_")} for kind in (Client, AsyncClient))
    assert once == awaited


@pytest.mark.parametrize("path", ["@{host}/quiet/x", "{host}", ".example/v1/status", ""])
def test_a_path_cannot_lead_to_another_host(server: Quiet, path: str) -> None:
    with Client("http://127.0.0.1", "srk_key") as client, pytest.raises(ValueError, match="begin with a slash"):
        client.get(path.format(host=server.url.removeprefix("http://")))
    assert server.asked == 0


def test_a_reader_that_stops_leaves_the_stream(server: Quiet) -> None:
    async def read_one() -> None:
        async with AsyncClient(server.url, "srk_key") as client:
            async for event in client.events("quiet"):
                assert event == EVENT
                break

    asyncio.run(read_one())
    assert server.left.wait(10)
