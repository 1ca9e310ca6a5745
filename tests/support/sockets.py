"""Raw connections to a server that may close them at any time."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime


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


def begin_signed_body(port: int, size: int, *, address: str = "127.0.0.1") -> socket.socket:
    """Send the head of a signed webhook from a local address, and all of its body but the last byte."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(address, 0))
    head = (
        "POST /v1/webhook HTTP/1.1\r\nHost: x\r\nwebhook-id: half\r\n"
        f"webhook-timestamp: {int(datetime.now(UTC).timestamp())}\r\nwebhook-signature: v1,{'a' * 43}=\r\n"
        f"X-Forwarded-For: {address}\r\nContent-Length: {size + 1}\r\n\r\n"
    )
    connection.sendall(head.encode())
    connection.sendall(b" " * size)
    return connection
