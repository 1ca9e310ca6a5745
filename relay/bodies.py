"""Reading a request's body: only what may be JSON, and never more of it than is allowed."""

from __future__ import annotations

from starlette.requests import Request

from models.errors import TooLarge, UnsupportedMediaType

FORM = "application/x-www-form-urlencoded"
"""What `curl -d` says of its body when nobody tells it better; so JSON under this name is accepted."""


async def read_body(request: Request, *, limit: int) -> bytes:
    """The body, of at most `limit` bytes. Reads no further than needed to refuse.

    Raises UnsupportedMediaType, TooLarge, or ClientDisconnect.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    _require_json(media_type)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType(
            "A compressed body is not accepted.", field="Content-Encoding", hint="Send the JSON as it is."
        )
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise _too_large(limit)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise _too_large(limit)
    if media_type == FORM and body and not body.lstrip().startswith(b"{"):
        raise _not_json_type(media_type)
    return bytes(body)


def _require_json(media_type: str) -> None:
    if media_type in ("", "application/json", "text/plain", "text/json", FORM) or media_type.endswith("+json"):
        return
    raise _not_json_type(media_type)


def _not_json_type(media_type: str) -> UnsupportedMediaType:
    return UnsupportedMediaType(
        f"A body of type {media_type[:64]!r} is not accepted.",
        field="Content-Type",
        expected="application/json",
        hint="Send one JSON object, with the header Content-Type: application/json.",
    )


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"The body has more than {limit:,} bytes.",
        expected=f"at most {limit:,} bytes",
        hint="Send long conversations as several conversation_chunk commands.",
    )
