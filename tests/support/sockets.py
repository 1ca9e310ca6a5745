"""Raw connections to a server that may close them at any time."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import suppress


def send_parts(connection: socket.socket, parts: Iterable[bytes]) -> None:
    """Send the parts one by one, as far as the server lets them arrive: it may answer and close before it has read
    everything."""
    with suppress(BrokenPipeError, ConnectionResetError):
        for part in parts:
            connection.sendall(part)


def receive_all(connection: socket.socket) -> bytes:
    """Receive until the server closes the connection, which resets it if the server has not read everything. Closes
    the connection."""
    received = []
    with connection, suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            received.append(part)
    return b"".join(received)
