"""Whether a token is asked for this relay (RFC 8707): what is given here must be of use nowhere else."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.requests import Request

PATHS = ("", "/", "/mcp", "/mcp/")
"""This relay as a whole, or its MCP server."""
DEFAULT_PORTS = {"http": 80, "https": 443}


def is_own_resource(request: Request, resources: Collection[str], *, public_url: str) -> bool:
    """Whether each of these addresses, if any, is of this relay: at PUBLIC_URL, or where the request came to. Whether
    it is https is not compared: a proxy that ends TLS need not say so."""
    own = {_place_of(public_url), _place_of(f"{request.scope['scheme']}://{request.headers.get('host', '')}")}
    return all(_place_of(resource) in own - {None} for resource in resources)


def _place_of(url: str) -> tuple[str, int | None] | None:
    """Host and port; None for what is no address of a relay."""
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
