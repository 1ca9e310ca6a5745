"""Prepares the environment of the local stack: reads `.env`, finds free ports, and checks that processes respond."""

from __future__ import annotations

import errno
import http.client
import re
import socket
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from models.errors import SettingsError

ANSWER_SECONDS = 2.0
"""The timeout of a health check; a healthy process responds to its own machine at once."""
_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*+(.*)")


def read_env_file(path: Path) -> dict[str, str]:
    """Read the KEY=VALUE lines of a file, with optional quotes around values. Returns an empty result for a missing
    file. Raises SettingsError."""
    if not path.is_file():
        return {}
    values: dict[str, str] = {}
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = text.strip()
        if not line or line.startswith("#"):
            continue
        match = _ASSIGNMENT.fullmatch(line)
        if match is None:
            raise SettingsError(f"{path}, line {number} is invalid: expected KEY=VALUE.")
        name, value = match.groups()
        quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'"
        values[name] = value[1:-1] if quoted else value
    return values


def free_port(host: str, port: int, *, variable: str) -> int:
    """Return the port, or any free one for 0. Raises SettingsError with the variable's name if it is not available."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as listener:
            # As the server itself does: connections in TIME_WAIT do not block the port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            return int(listener.getsockname()[1])
    except OSError as error:
        reason = "is in use by another program" if error.errno == errno.EADDRINUSE else f"is not available: {error}"
        raise SettingsError(f"Port {port} on {host or 'all addresses'} {reason}. Set another {variable}.") from error


def free_port_or_other(host: str, port: int, *, variable: str) -> int:
    """Return the port, or any free one if it is in use. Raises SettingsError if the host is not available."""
    try:
        return free_port(host, port, variable=variable)
    except SettingsError:
        return free_port(host, 0, variable=variable)


def local_url(host: str, port: int) -> str:
    """Return the URL by which this machine reaches a listener on that host and port."""
    name = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{name}:{port}"


def answers(url: str, *, pid: int) -> bool:
    """Check that this process, and not another one, listens there and is healthy or asks for credentials."""
    import psutil  # Servers do not have it, where operators' commands import this module.

    address = urlsplit(url)
    try:
        sockets = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return False
    if not any(found.status == psutil.CONN_LISTEN and found.laddr.port == address.port for found in sockets):
        return False
    # urllib.request would use the environment's proxy.
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", address.path or "/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return status < HTTPStatus.BAD_REQUEST or status == HTTPStatus.UNAUTHORIZED


def child_environment(base: Mapping[str, str], **given: str | int | Path) -> dict[str, str]:
    """Add settings, by field name, to the environment as variables."""
    return {**base, **{name.upper(): str(value) for name, value in given.items()}}
