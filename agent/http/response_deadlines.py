"""Connections with a deadline for the whole response.

The read timeout of urllib3 restarts with each byte, so a server that trickles bytes never exceeds it.
"""

from __future__ import annotations

import http.client
import io
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

# It logs URLs, and those of claims contain their tokens.
logging.getLogger("urllib3.connection").addFilter(lambda _: False)

_ends_at: ContextVar[float | None] = ContextVar("ends_at", default=None)


@contextmanager
def complete_within(seconds: float) -> Iterator[None]:
    """Set a deadline for the block: reads of responses after it raise TimeoutError."""
    token = _ends_at.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _ends_at.reset(token)


def make_pool(*, connections: int) -> urllib3.PoolManager:
    """Create a connection pool that observes complete_within and does not retry."""
    pool = urllib3.PoolManager(retries=False, maxsize=connections)
    pool.pool_classes_by_scheme = {"http": _Pool, "https": _EncryptedPool}
    return pool


class _DeadlineReader(io.RawIOBase):
    """Reads a socket, each time with the remaining time as timeout."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._socket, self._raw, self._silence_seconds = sock, raw, sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        ends_at = _ends_at.get()
        if ends_at is not None:
            left = ends_at - time.monotonic()
            if left <= 0:
                raise TimeoutError("the response takes too long")
            self._socket.settimeout(left if self._silence_seconds is None else min(left, self._silence_seconds))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self.fp: Any = io.BufferedReader(_DeadlineReader(sock, self.fp.detach()))


class _Connection(HTTPConnection):
    response_class = _Response


class _EncryptedConnection(HTTPSConnection):
    response_class = _Response


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _EncryptedPool(HTTPSConnectionPool):
    ConnectionCls = _EncryptedConnection
