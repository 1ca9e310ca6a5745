"""A proxy in front of Postgres that loses a COMMIT or its acknowledgement by closing the connection."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Literal

SOCKET_NAME = ".s.PGSQL.5432"
CHUNK_BYTES = 65_536
ACCEPT_SECONDS = 0.2
COMMIT = b"COMMIT\0"
WRITE = b"INSERT INTO deliveries"
"""A statement of a drain that applies something. Losing another commit would prove nothing."""

Moment = Literal["before", "sent", "answered"]
"""The moment to close the connection: before the COMMIT is passed on, right after it, or after its acknowledgement."""


class CommitProxy:
    """Listens in a folder like Postgres, and passes everything on, except what it is told to lose."""

    def __init__(self, folder: Path, *, server_url: str) -> None:
        """`server_url` names the folder of Postgres' own socket."""
        before, _, server = server_url.partition("host=")
        self.url = f"{before}host={folder}"
        self.lost = 0
        """The number of connections closed so far."""
        self._server = str(Path(server) / SOCKET_NAME)
        self._armed: list[Moment] = []
        self._stopping = threading.Event()
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / SOCKET_NAME))
        self._listener.listen()
        self._listener.settimeout(ACCEPT_SECONDS)
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> CommitProxy:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._threads[0].join()
        _cut(*self._open)
        for thread in self._threads[1:]:
            thread.join()
        for connection in (*self._open, self._listener):
            connection.close()

    def lose(self, moment: Moment) -> None:
        """Close the next connection that commits deliveries, at this moment."""
        self._armed.append(moment)

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            client.settimeout(None)
            server = socket.socket(socket.AF_UNIX)
            self._open += [client, server]
            try:
                server.connect(self._server)
            except OSError:
                _cut(client)
                continue
            lost = threading.Event()
            for target, arguments in (
                (self._pass_to_server, (client, server, lost)),
                (_pass_to_client, (server, client, lost)),
            ):
                self._threads.append(threading.Thread(target=target, args=arguments))
                self._threads[-1].start()

    def _pass_to_server(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        writes, tail = False, b""
        while data := _receive(client):
            writes = writes or WRITE in tail + data
            tail = (tail + data)[-len(WRITE) :]
            moment = self._armed.pop() if COMMIT in data and writes and self._armed else None
            if COMMIT in data:
                writes, tail = False, b""
            if moment is not None:
                self.lost += 1
                lost.set()
            if moment == "before" or not _send(server, data) or moment == "sent":
                break
        _cut(client, server)


def _pass_to_client(server: socket.socket, client: socket.socket, lost: threading.Event) -> None:
    while (data := _receive(server)) and not lost.is_set() and _send(client, data):
        pass
    _cut(client, server)


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(CHUNK_BYTES)
    except OSError:
        return b""


def _send(connection: socket.socket, data: bytes) -> bool:
    try:
        connection.sendall(data)
    except OSError:
        return False
    return True


def _cut(*connections: socket.socket) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
