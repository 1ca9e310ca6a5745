"""Attaches handlers to the addresses in `models.routes`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.routes import ADDRESSES

Handler = Callable[[Request], Awaitable[Response]]


def route(name: str, handler: Handler) -> Route:
    """The route to the address of this name."""
    address = ADDRESSES[name]
    return Route(address.path, handler, methods=[address.method, *address.more_methods], name=name)
