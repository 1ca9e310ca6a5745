"""Reading a request's body: only what may be JSON, compressed or not, and never more of it than is allowed."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import NamedTuple

from starlette.datastructures import Headers

from models.decoding.strict import BYTE_ORDER_MARK
from models.errors import NotJson, TooLarge, TooManyRequests, Undecodable, UnsupportedMediaType
from relay.http.client_addresses import network_of
from relay.http.signature_headers import is_signed

FORM = "application/x-www-form-urlencoded"
"""What `curl -d` says of its body when nobody tells it better; so JSON under this name is accepted."""
BYTES = "application/octet-stream"
"""What programs say that do not know."""
JSON_TYPES = frozenset({"", "application/json", "text/plain", "text/json", "application/x-json", FORM, BYTES})
WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""The encodings that are understood, as zlib calls them."""
STEP_BYTES = 65_536
"""Decompressed at a time, so that a bomb takes no more memory than its limit and this."""


MAX_UNPROVEN_BYTES = 128 * 1_048_576
"""Of all bodies together that arrive from senders who may be anybody."""
MAX_ADDRESS_BYTES = 16 * 1_048_576
"""Of those that come from one address."""
LARGE_BYTES = 65_536
"""From which on a body takes more than some milliseconds to be taken apart."""
EVICTED_SECONDS = 5
"""After which the sender of an evicted body may try again."""


class UnauthenticatedBytes:
    """Bounds the bodies whose senders are not known before the end, when their signature can be checked.

    A sender with a key has limits of its own; without this one, anybody could fill the memory with halves of bodies.
    Beyond the share of an address its oldest body is evicted, and beyond the bound for all the oldest of all. Whoever
    sends a body at once has a newer one than those that only begin, and so is served.
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
        """Yield a function that counts the bytes of one body as they arrive. Raises TooManyRequests within the block
        if the body is evicted."""
        try:
            async with asyncio.timeout(None) as eviction:
                body = _Body(address, eviction)
                yield partial(self._add, body)
        except TimeoutError as error:
            raise TooManyRequests(
                "Too many signed bodies arrive at the moment, and this one took too long; nothing was stored.",
                code="too_many_bodies",
                retry_after_seconds=EVICTED_SECONDS,
                hint="Send the whole body at once.",
            ) from error
        finally:
            self._remove(body)

    def _add(self, body: _Body, size: int) -> None:
        if body.eviction.when() is not None:
            return  # It is evicted, and about to be told so.
        share = self._shares.setdefault(body.address, _Bodies())
        for bodies, most in ((share, self._share_bytes), (self._all, self._all_bytes)):
            bodies.add(body, size)
            while bodies.size > most:
                oldest = next(iter(bodies.sizes))
                self._remove(oldest)
                oldest.eviction.reschedule(asyncio.get_running_loop().time())

    def _remove(self, body: _Body) -> None:
        """Forget a body: it was read to the end, given up, or evicted. May be repeated."""
        self._all.remove(body)
        if share := self._shares.get(body.address):
            share.remove(body)
            if not share.sizes:
                del self._shares[body.address]


class _Body(NamedTuple):
    """One body on its way in."""

    address: str
    eviction: asyncio.Timeout


class _Bodies:
    """Bodies that share a bound, and how much of each has arrived, the oldest first."""

    def __init__(self) -> None:
        self.size = 0
        self.sizes: dict[_Body, int] = {}

    def add(self, body: _Body, size: int) -> None:
        """Count what has arrived of a body."""
        self.sizes[body] = self.sizes.get(body, 0) + size
        self.size += size

    def remove(self, body: _Body) -> None:
        """Count no more of it."""
        self.size -= self.sizes.pop(body, 0)


async def read_body(
    headers: Headers,
    parts: AsyncIterable[bytes],
    *,
    limit: int,
    address: str | None = None,
    unproven: UnauthenticatedBytes | None = None,
    takes_forms: bool = False,
) -> bytes:
    """The body, of at most `limit` bytes, compressed and decompressed. Reads no further than needed to refuse. What is
    signed is given as it came, all else without a byte order mark.

    Raises UnsupportedMediaType, Undecodable, TooLarge, what `parts` raises, or TooManyRequests if the request is signed
    and too much of such is `unproven`, at its address or at all.
    """
    media_types = media_types_of(headers)
    _require_json(media_types)
    decompression = _choose_decompression(headers, limit)
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise _too_large(limit)
    body, size = bytearray(), 0
    async with AsyncExitStack() as stack:
        stack.push(partial(_clear_refused, body))
        count = None
        if unproven is not None and is_signed(headers):
            count = await stack.enter_async_context(unproven.reading(network_of(address)))
        async for part in parts:
            size += len(part)
            if count is not None:
                count(len(part))
            if size > limit:
                raise _too_large(limit)
            if decompression is None:
                body += part
            else:
                decompression.add(part, body)
    if decompression is not None:
        decompression.finish()
    content = bytes(body) if is_signed(headers) else without_mark(bytes(body))
    if not takes_forms and not media_types.isdisjoint((FORM, BYTES)) and content and content.lstrip()[:1] not in b'{["':
        raise _not_json_type(media_types)
    if not content and not takes_forms and (size or "transfer-encoding" in headers):
        raise NotJson(
            "The body is empty, though one was announced.",
            expected="a JSON object: {...}",
            hint="Send {}, or no body at all with Content-Length: 0.",
        )
    return content


def _clear_refused(body: bytearray, refusal: type[BaseException] | None, *_: object) -> None:
    """Free what has arrived of a body that is refused: the error's traceback keeps it until the collector comes."""
    if refusal is not None:
        body.clear()


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


class LargeBodies:
    """Has large bodies taken apart one in each turn of the event loop, so that several at once, each of which takes a
    part of a second, keep nobody else waiting for all of them."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, body: bytes) -> AsyncIterator[None]:
        """Take this body apart within the block, without waiting there for anything."""
        if len(body) < LARGE_BYTES:
            yield
            return
        async with self._lock:
            try:
                yield
            finally:
                await asyncio.sleep(0)  # Who else is ready comes first.
