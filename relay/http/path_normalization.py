"""Normalizes paths with a slash at the end, or with two where one is meant."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

KEYS = "/memories/"
"""A memory key follows, whose slashes belong to it."""

_SLASHES = re.compile(r"/{2,}")


class PathNormalizationMiddleware:
    """Middleware: routes `/v1/webhook/` and `//v1/webhook` as `/v1/webhook`. A redirect would lose the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == "http":
            path: str = scope["path"]
            if path.endswith("/") or "//" in path:
                scope["path"] = normalize_path(path)
        await self._app(scope, receive, send)


def normalize_path(path: str) -> str:
    """Returns the path without empty segments."""
    head, mark, key = path.partition(KEYS)
    head = _SLASHES.sub("/", head).rstrip("/")
    if key.strip("/"):
        return f"{head}{mark}{key}"
    return (head + mark).rstrip("/") or "/"
