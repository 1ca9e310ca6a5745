"""Resource indicators (RFC 8707): tokens are issued for this relay only."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.requests import Request

PATHS = ("", "/", "/mcp", "/mcp/")
"""The paths of the relay as a whole and of its MCP server."""
DEFAULT_PORTS = {"http": 80, "https": 443}


def is_own_resource(request: Request, resources: Collection[str], *, public_url: str) -> bool:
    """Return whether each of these URLs is this relay's, by PUBLIC_URL or by the request's Host. Compares no schemes:
    a proxy that terminates TLS need not announce it."""
    own = {_host_and_port(public_url), _host_and_port(f"{request.scope['scheme']}://{request.headers.get('host', '')}")}
    return all(_host_and_port(resource) in own - {None} for resource in resources)


def _host_and_port(url: str) -> tuple[str, int | None] | None:
    """Host and port of a URL; None for a URL that no relay can have."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or parts.username is not None:
        return None
    if parts.path not in PATHS or parts.query or parts.fragment:
        return None
    return parts.hostname, None if port in DEFAULT_PORTS.values() else port
