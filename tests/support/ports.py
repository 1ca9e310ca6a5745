"""Ports for programs that have to be told one."""

from __future__ import annotations

import socket
from contextlib import closing
from random import SystemRandom

RANGE = range(15_000, 32_000)
"""Below the ports that Linux gives to whoever asks for any, so that nothing comes upon one of these by chance."""

_kept: list[socket.socket] = []


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on, and that no other process of tests is given while this one lives:
    each keeps the UDP port of the same number for a sign."""
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
