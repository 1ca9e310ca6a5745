"""The public package: the only name that an installed session-relay adds to Python's modules. The wheel has the rooms
inside it, as session_relay.models and so on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.http.error_responses import StillPending
    from models.errors import Conflict, Forbidden, NotFound, RelayError, TooManyRequests, Unauthorized, Unavailable
    from session_relay.async_client import AsyncClient
    from session_relay.client import Client, Task

__all__ = [
    "AsyncClient",
    "Client",
    "Conflict",
    "Forbidden",
    "NotFound",
    "RelayError",
    "StillPending",
    "Task",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is used first: the command line imports this package, and needs none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("Client", "Task"):
        from session_relay import client as module
    elif name == "AsyncClient":
        from session_relay import async_client as module  # type: ignore[no-redef]
    elif name == "StillPending":
        from agent.http import error_responses as module  # type: ignore[no-redef]
    else:
        from models import errors as module  # type: ignore[no-redef]
    return getattr(module, name)
