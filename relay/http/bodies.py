"""Reads request bodies: only types that may be JSON, compressed or not, and never more than the limit."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from models.decoding.strict import BYTE_ORDER_MARK
from models.errors import NotJson, TooLarge, TooManyRequests, Undecodable, UnsupportedMediaType
from relay.http.client_addresses import network_of
from relay.http.signature_headers import is_signed

FORM = "application/x-www-form-urlencoded"
"""The default of `curl -d`, so JSON with this type is accepted."""
BYTES = "application/octet-stream"
"""The type of programs that do not know better."""
JSON_TYPES = frozenset({"", "application/json", "text/plain", "text/json", "application/x-json", FORM, BYTES})
JSON_ONLY = frozenset({"application/json"})
WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Supported encodings, with zlib's parameter."""
KEPT_LENGTH = 200
"""Longer content types are parsed each time, so that those that are kept stay small."""
STEP_BYTES = 65_536
"""Decompressed at a time, so that a zip bomb takes no more memory than its limit and this."""


MAX_UNPROVEN_BYTES = 128 * 1_048_576
"""All bodies together that are arriving from unauthenticated senders."""
MAX_ADDRESS_BYTES = 16 * 1_048_576
"""Limit for one address among them."""
LARGE_BYTES = 65_536
"""Larger bodies take more than a few milliseconds to decode."""
EVICTED_SECONDS = 5
"""Retry-After for the sender of an evicted body."""


class UnauthenticatedBytes:
    """Limits the bodies whose sender is unknown until their end, when the signature can be checked.

    Without it, anybody could fill the memory with unfinished bodies. Above an address' share its oldest body is
    evicted, and above the total the oldest of all. A client that sends its body at once has a newer one than those
    that only begin, and so is served.
    """

    def __init__(
        self, *, body_limit: int, share_bytes: int = MAX_ADDRESS_BYTES, all_bytes: int = MAX_UNPROVEN_BYTES
    ) -> None:
        self._share_bytes = max(share_bytes, 2 * body_limit)
        self._all_bytes = max(all_bytes, self._share_bytes)
        self._all = _Bodies()
        self._shares: dict[str, _Bodies] = {}

    @asynccontextmanager
    async def reading(self, address: str) -> AsyncIterator[Callable[[int], None]]:
        """Gives a function that counts the bytes of one body as they arrive. Raises TooManyRequests within the block if
        the body is evicted."""
        try:
            async with asyncio.timeout(None) as eviction:
                body = _Body(address, eviction)
                yield partial(self._add, body)
        except TimeoutError as error:
            raise TooManyRequests(
                "Too many signed bodies are arriving at the moment, and this one took too long; nothing was stored.",
                code="too_many_bodies",
                retry_after_seconds=EVICTED_SECONDS,
                hint="Send the whole body at once.",
            ) from error
        finally:
            self._remove(body)

    def _add(self, body: _Body, size: int) -> None:
        if body.eviction.when() is not None:
            return  # Already evicted.
        share = self._shares.setdefault(body.address, _Bodies())
        for bodies, most in ((share, self._share_bytes), (self._all, self._all_bytes)):
            bodies.add(body, size)
            while bodies.size > most:
                oldest = next(iter(bodies.sizes))
                self._remove(oldest)
                oldest.eviction.reschedule(asyncio.get_running_loop().time())

    def _remove(self, body: _Body) -> None:
        """Stop counting a body that was read, abandoned or evicted. May be repeated."""
        self._all.remove(body)
        if share := self._shares.get(body.address):
            share.remove(body)
            if not share.sizes:
                del self._shares[body.address]


class _Body(NamedTuple):
    """A body that is arriving."""

    address: str
    eviction: asyncio.Timeout


class _Bodies:
    """Bodies that share a limit, with the bytes that have arrived of each, the oldest first."""

    def __init__(self) -> None:
        self.size = 0
        self.sizes: dict[_Body, int] = {}

    def add(self, body: _Body, size: int) -> None:
        """Count bytes of a body."""
        self.sizes[body] = self.sizes.get(body, 0) + size
        self.size += size

    def remove(self, body: _Body) -> None:
        """Stop counting a body."""
        self.size -= self.sizes.pop(body, 0)


async def read_body(
    headers: Headers,
    receive: Receive,
    *,
    limit: int,
    address: str | None = None,
    unproven: UnauthenticatedBytes | None = None,
    takes_forms: bool = False,
) -> bytes:
    """The body, of at most `limit` bytes, compressed and decompressed. Reads no further than needed to refuse. What is
    signed is given as it came, all else without a byte order mark.

    Raises UnsupportedMediaType, Undecodable, TooLarge, ClientDisconnect, or TooManyRequests if the request is signed
    and too much of such is `unproven`, at its address or at all.
    """
    media_types = media_types_of(headers)
    _require_json(media_types)
    decompression = _choose_decompression(headers, limit)
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise _too_large(limit)
    signed = is_signed(headers)
    body = bytearray()
    try:
        if signed and unproven is not None:
            async with unproven.reading(network_of(address)) as count:
                size = await _collect(receive, body, limit=limit, decompression=decompression, count=count)
        else:
            size = await _collect(receive, body, limit=limit, decompression=decompression)
    except BaseException:
        body.clear()  # The error's traceback would keep the bytes until garbage collection.
        raise
    if decompression is not None:
        decompression.finish()
    content = bytes(body) if signed else without_mark(bytes(body))
    if not takes_forms and not media_types.isdisjoint((FORM, BYTES)) and content and content.lstrip()[:1] not in b'{["':
        raise _not_json_type(media_types)
    if not content and not takes_forms and (size or "transfer-encoding" in headers):
        raise NotJson(
            "The body is empty, although the headers announce one.",
            expected="a JSON object: {...}",
            hint="Send {}, or Content-Length: 0 without a body.",
        )
    return content


def plain_body(headers: Headers, body: bytes, *, limit: int) -> bytes | None:
    """Returns a body that has arrived in whole, as `read_body` would; None if it takes more to judge it, as it is not
    named JSON, or is signed, compressed, empty or too large."""
    if media_types_of(headers) != JSON_ONLY or is_signed(headers) or "content-encoding" in headers:
        return None
    return without_mark(body) if 0 < len(body) <= limit else None


async def _collect(
    receive: Receive,
    body: bytearray,
    *,
    limit: int,
    decompression: _Decompression | None,
    count: Callable[[int], None] | None = None,
) -> int:
    """Append the parts to the body as they arrive; returns how many bytes arrived. Raises TooLarge or Undecodable."""
    size, is_complete = 0, False
    while not is_complete:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        is_complete = not message.get("more_body", False)
        size += len(part)
        if count is not None:
            count(len(part))
        if size > limit:
            raise _too_large(limit)
        if decompression is None:
            body += part
        else:
            decompression.add(part, body)
    return size


def without_mark(body: bytes) -> bytes:
    """Returns the body without a byte order mark."""
    return body.removeprefix(BYTE_ORDER_MARK)


def media_types_of(headers: Headers) -> frozenset[str]:
    """Returns the request's media types. Some proxies repeat the header, or join two values."""
    given = ",".join(headers.getlist("content-type"))
    return _split_once(given) if len(given) <= KEPT_LENGTH else _split(given)


def _split(given: str) -> frozenset[str]:
    return frozenset(part.partition(";")[0].strip().lower() for part in given.split(","))


_split_once = lru_cache(256)(_split)


class _Decompression:
    """Decompresses one body as it arrives."""

    def __init__(self, encoding: str, limit: int) -> None:
        self._encoding = encoding
        self._limit = limit
        self._stream = zlib.decompressobj(WINDOW_BITS[encoding])

    def add(self, part: bytes, body: bytearray) -> None:
        """Decompress a part and append it to the body. Raises Undecodable or TooLarge."""
        while part:
            if self._stream.eof:
                raise self._undecodable("data follows its end")
            try:
                body += self._stream.decompress(part, STEP_BYTES)
            except zlib.error as error:
                raise self._undecodable("it is corrupt") from error
            if len(body) > self._limit:
                raise _too_large(self._limit)
            part = self._stream.unconsumed_tail or self._stream.unused_data

    def finish(self) -> None:
        """Raise Undecodable unless the stream is complete."""
        if not self._stream.eof:
            raise self._undecodable("it is truncated")

    def _undecodable(self, reason: str) -> Undecodable:
        return Undecodable(
            f"The body is not valid {self._encoding}: {reason}.",
            field="Content-Encoding",
            expected=f"one {self._encoding} stream",
            hint="Or send the JSON without Content-Encoding.",
        )


def _choose_decompression(headers: Headers, limit: int) -> _Decompression | None:
    encoding = ",".join(headers.getlist("content-encoding")).strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding not in WINDOW_BITS:
        raise UnsupportedMediaType(
            f"Unsupported Content-Encoding {encoding[:64]!r}.",
            field="Content-Encoding",
            expected="gzip, deflate, or none",
            hint="Send the JSON uncompressed, or compressed once.",
        )
    if is_signed(headers):
        raise UnsupportedMediaType(
            "A signed body must not be compressed.",
            field="Content-Encoding",
            expected="no Content-Encoding",
            hint="Send the JSON uncompressed, exactly as it was signed.",
        )
    return _Decompression(encoding, limit)


def _require_json(media_types: frozenset[str]) -> None:
    if media_types <= JSON_TYPES:
        return
    others = [given for given in media_types if given not in JSON_TYPES and not given.endswith("+json")]
    if others:
        raise _not_json_type(others)


def _not_json_type(media_types: Collection[str]) -> UnsupportedMediaType:
    return UnsupportedMediaType(
        f"Unsupported Content-Type {min(media_types)[:64]!r}.",
        field="Content-Type",
        expected="application/json",
        hint="Send one JSON object with Content-Type: application/json.",
    )


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"The body has more than {limit:,} bytes.",
        expected=f"at most {limit:,} bytes",
        hint="Send long conversations as several conversation_chunk commands.",
    )


class LargeBodies:
    """Decodes one large body per turn of the event loop. Each may take a good part of a second; other requests then
    wait for one of them, not for all."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, body: bytes) -> AsyncIterator[None]:
        """Decode this body within the block, without awaiting anything there."""
        if len(body) < LARGE_BYTES:
            yield
            return
        async with self._lock:
            try:
                yield
            finally:
                await asyncio.sleep(0)  # Other tasks that are ready run first.
