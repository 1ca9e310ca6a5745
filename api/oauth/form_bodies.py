"""Reads the forms that apps and browsers send."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import Message

from models.errors import TooLarge

MAX_FORM_BYTES = 16_384


async def read_form(request: Request) -> bytes:
    """Read a body of at most MAX_FORM_BYTES. Raises TooLarge."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_FORM_BYTES:
            raise TooLarge(f"The body has more than {MAX_FORM_BYTES:,} bytes.")
    return body


def with_body(request: Request, body: bytes) -> Request:
    """Recreate the request with its body unread."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(request.scope, receive)
