"""`Expect: 100-continue`: a client that asks before it sends a body need not send it if it is rejected."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

EXPECTATION = (b"expect", b"100-continue")


class ExpectContinueMiddleware:
    """Middleware: closes the connection after responding to a client that was not told to continue. It may leave the
    body out, and its next request would be taken for the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or not any((name, value.lower()) == EXPECTATION for name, value in scope["headers"]):
            await self._app(scope, receive, send)
            return
        is_read = False

        async def note_reading() -> Message:
            nonlocal is_read
            is_read = True
            return await receive()

        async def close_unread(message: Message) -> None:
            if message["type"] == "http.response.start" and not is_read:
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await self._app(scope, note_reading, close_unread)
