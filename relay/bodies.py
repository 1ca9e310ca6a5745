"""Reading a request's body: only what may be JSON, compressed or not, and never more of it than is allowed."""

from __future__ import annotations

import zlib
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.requests import Request

from models.errors import NotJson, TooLarge, Unavailable, Undecodable, UnsupportedMediaType
from relay.signatures import is_signed

FORM = "application/x-www-form-urlencoded"
"""What `curl -d` says of its body when nobody tells it better; so JSON under this name is accepted."""
BYTES = "application/octet-stream"
"""What programs say that do not know."""
JSON_TYPES = frozenset({"", "application/json", "text/plain", "text/json", "application/x-json", FORM, BYTES})
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Before UTF-8 it means nothing; programs for Windows write it."""
WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""The encodings that are understood, as zlib calls them."""
STEP_BYTES = 65_536
"""Decompressed at a time, so that a bomb takes no more memory than its limit and this."""


MAX_UNPROVEN_BYTES = 128 * 1_048_576
"""Of all bodies together that arrive from senders who may be anybody."""


class Unproven:
    """What has arrived of bodies whose senders are not known before the end, when their signature can be checked.

    Whoever has a key has limits of its own; without this one, anybody could fill the memory with halves of bodies.
    """

    def __init__(self) -> None:
        self._bytes = 0

    def add(self, size: int) -> None:
        """Count so much. Raises Unavailable if it is too much."""
        self._bytes += size
        if self._bytes > MAX_UNPROVEN_BYTES:
            raise Unavailable("Too many signed bodies arrive at the moment; nothing was stored.")

    def remove(self, size: int) -> None:
        """Forget so much: it was read to the end, or given up."""
        self._bytes -= size


async def read_body(
    request: Request, *, limit: int, unproven: Unproven | None = None, takes_forms: bool = False
) -> bytes:
    """The body, of at most `limit` bytes, compressed and decompressed. Reads no further than needed to refuse. What is
    signed is given as it came, all else without a byte order mark.

    Raises UnsupportedMediaType, Undecodable, TooLarge, ClientDisconnect, or Unavailable if the request is signed and
    too much of such is `unproven`.
    """
    media_types = media_types_of(request.headers)
    _require_json(media_types)
    decompression = _choose_decompression(request.headers, limit)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise _too_large(limit)
    counter = unproven if unproven is not None and is_signed(request.headers) else None
    body, size = bytearray(), 0
    try:
        async for part in request.stream():
            size += len(part)
            if counter is not None:
                counter.add(len(part))
            if size > limit:
                raise _too_large(limit)
            if decompression is None:
                body += part
            else:
                decompression.add(part, body)
    finally:
        if counter is not None:
            counter.remove(size)
    if decompression is not None:
        decompression.finish()
    content = bytes(body) if is_signed(request.headers) else without_mark(bytes(body))
    if not takes_forms and not media_types.isdisjoint((FORM, BYTES)) and content and content.lstrip()[:1] not in b'{["':
        raise _not_json_type(media_types)
    if not content and not takes_forms and (size or "transfer-encoding" in request.headers):
        raise NotJson(
            "The body is empty, though one was announced.",
            expected="a JSON object: {...}",
            hint="Send {}, or no body at all with Content-Length: 0.",
        )
    return content


def without_mark(body: bytes) -> bytes:
    """The body without a byte order mark."""
    return body.removeprefix(BYTE_ORDER_MARK)


def media_types_of(headers: Headers) -> frozenset[str]:
    """The media types that a request names. Some proxies send the header twice, or put two into one."""
    given = ",".join(headers.getlist("content-type"))
    return frozenset(part.partition(";")[0].strip().lower() for part in given.split(","))


class _Decompression:
    """One compressed body on its way in."""

    def __init__(self, encoding: str, limit: int) -> None:
        self._encoding = encoding
        self._limit = limit
        self._stream = zlib.decompressobj(WINDOW_BITS[encoding])

    def add(self, part: bytes, body: bytearray) -> None:
        """Append to the body what the part adds to it. Raises Undecodable or TooLarge."""
        while part:
            if self._stream.eof:
                raise self._undecodable("it goes on after its end")
            try:
                body += self._stream.decompress(part, STEP_BYTES)
            except zlib.error as error:
                raise self._undecodable("it is corrupt") from error
            if len(body) > self._limit:
                raise _too_large(self._limit)
            part = self._stream.unconsumed_tail or self._stream.unused_data

    def finish(self) -> None:
        """Raise Undecodable unless it was complete."""
        if not self._stream.eof:
            raise self._undecodable("it is cut off")

    def _undecodable(self, reason: str) -> Undecodable:
        return Undecodable(
            f"The body is not valid {self._encoding}: {reason}.",
            field="Content-Encoding",
            expected=f"one {self._encoding} stream",
            hint="Or send the JSON as it is, without Content-Encoding.",
        )


def _choose_decompression(headers: Headers, limit: int) -> _Decompression | None:
    encoding = ",".join(headers.getlist("content-encoding")).strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding not in WINDOW_BITS:
        raise UnsupportedMediaType(
            f"A body with the encoding {encoding[:64]!r} is not accepted.",
            field="Content-Encoding",
            expected="gzip, deflate, or none",
            hint="Send the JSON as it is, or compressed once.",
        )
    if is_signed(headers):
        raise UnsupportedMediaType(
            "A signed body is not accepted when it is compressed.",
            field="Content-Encoding",
            expected="no Content-Encoding",
            hint="Send the JSON as it is: what is signed must be what is sent.",
        )
    return _Decompression(encoding, limit)


def _require_json(media_types: frozenset[str]) -> None:
    others = [given for given in media_types if given not in JSON_TYPES and not given.endswith("+json")]
    if others:
        raise _not_json_type(others)


def _not_json_type(media_types: Collection[str]) -> UnsupportedMediaType:
    return UnsupportedMediaType(
        f"A body of type {min(media_types)[:64]!r} is not accepted.",
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
