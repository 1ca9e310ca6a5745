"""Shows errors to people: replaces the JSON of an error by a page, if a browser asked for one."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.deferred import Deferred
from api.pages.rendering import load_templates, render
from models.routes import template_of
from relay.http.content_negotiation import accepts_html

FOR_PROGRAMS = (template_of("webhook").removesuffix("webhook"), template_of("webhook_alias"), template_of("mcp"))
"""Their errors are JSON, whatever the sender accepts: some libraries ask for HTML by default."""
FIRST_ERROR = 400
SENTENCES = re.compile(r"(?<=[.?!;])\s+")
"""Between the parts of a hint. Those that name routes help only programs."""
TITLES = {
    401: "Sign in first",
    403: "Not allowed",
    404: "Not found",
    409: "Conflict",
    413: "Too large",
    429: "Too many requests",
    500: "Something went wrong",
    503: "Unavailable at the moment",
}


class ErrorPagesMiddleware:
    """Middleware: answers browsers with pages. It must be around all others, since these report errors, too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._templates = Deferred(load_templates)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or scope["path"].startswith(FOR_PROGRAMS):
            await self._app(scope, receive, send)
            return
        if not accepts_html(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        await self._templates.get()  # In a thread: the first page must not delay the requests of others.
        await self._app(scope, receive, _Replacement(scope, receive, send))


class _Replacement:
    """A `send` that holds an error in JSON back until it is complete, and sends its page instead."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_error(message):
            self._start = message
        elif self._start is None:
            await self._send(message)
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            more = message.get("more_body", False)
            # A response that lingers has more to come, but no more text.
            if self._body or not more:
                start, self._start = self._start, None
                await self._answer(start, more=more)

    async def _answer(self, start: Message, *, more: bool) -> None:
        content = msgspec.json.decode(self._body) if self._body else {}
        page = error_page(start["status"], content.get("error", {}))
        headers = MutableHeaders(raw=list(start["headers"]))
        headers.update(dict(page.headers))
        await self._send({**start, "headers": headers.raw})
        body = b"" if self._scope["method"] == "HEAD" else page.body
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def error_page(status: int, error: dict[str, Any]) -> Response:
    """Return the page of an error in the form of the API."""
    hint = " ".join(part for part in SENTENCES.split(error.get("hint") or "") if "/" not in part)
    title = TITLES.get(status, "Not possible")
    return render("error.html", status=status, title=title, number=status, error={**error, "hint": hint})


def _is_error(start: Message) -> bool:
    return start["status"] >= FIRST_ERROR and Headers(raw=start["headers"]).get("content-type") == "application/json"
