"""Ports for programs that need one as a setting."""

from __future__ import annotations

import socket
from contextlib import closing
from random import SystemRandom

RANGE = range(15_000, 32_000)
"""Below the ephemeral ports of Linux, so that no other program gets one of these by chance."""

_kept: list[socket.socket] = []


def free_port() -> int:
    """Return a port on 127.0.0.1 that is not in use, and that no other test process gets while this one lives: each
    keeps the UDP port of the same number as a lock."""
    while True:
        port = SystemRandom().choice(RANGE)
        sign = socket.socket(type=socket.SOCK_DGRAM)
        try:
            sign.bind(("127.0.0.1", port))
            with closing(socket.socket()) as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            sign.close()
            continue
        _kept.append(sign)
        return port
