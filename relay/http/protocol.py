"""HTTP/1.1 with limits: uvicorn's fast parser has none, and would gather headers until memory ends, or wait for ever
for a client that sends the rest of its request, or reads its answer, never."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Literal, cast

import httptools
import msgspec
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from models.errors import BadRequest, RelayError, TooSlow, Unavailable
from relay.http.connection_limits import ConnectionRegistry

MAX_HEAD_BYTES = 65_536
"""Request line and headers, or trailers, beside what one read brings; common servers allow 8 to 64 kB."""

FRAMING = (b"content-length", b"transfer-encoding")
"""Headers that say how long a body is."""

logger = logging.getLogger(__name__)


class LimitedHttpProtocol(HttpToolsProtocol):
    """Uvicorn's protocol; what is no HTTP, too long or too slow, gets an error in the usual form. Offers to speak
    another protocol are ignored (RFC 9110, 7.8), and so are trailers, which are no headers.

    Nothing here sets a timer: a request sets deadlines, and `ConnectionRegistry` checks them all now and then. A
    connection that is idle after a request ends by uvicorn's keep-alive.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clients = cast("ConnectionRegistry", self.server_state)
        self._timeouts = self._clients.timeouts
        self._progress = False
        self._bytes_without_progress = 0
        self._part: Literal["head", "body"] | None = None
        """What has begun to arrive and is not complete."""
        self._is_resuming = False
        """Whether the parser reads a head that was read before."""
        self._due_at: float | None = None
        """Until when the client has to send what it owes: the first head, or what has begun."""
        self._unread = 0
        """Bytes of answers that the client had not taken at the last look."""
        self._unread_due_at = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._due_at = self._clients.now + self._timeouts.head_seconds
        if self._clients.make_room():
            self._clients.mark_idle(self)
        else:
            self._answer(Unavailable("Too many connections are open at the moment."))

    def connection_lost(self, exc: Exception | None) -> None:
        self._clients.mark_active(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._progress = False
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        if self.transport.is_closing():
            return
        self._bytes_without_progress = 0 if self._progress else self._bytes_without_progress + len(data)
        if self._bytes_without_progress > MAX_HEAD_BYTES:
            self.send_400_response(f"The head of the request has more than {MAX_HEAD_BYTES:,} bytes.")
        elif self._due_at is None and not self._is_answering():
            self._idle()

    def _parse(self, data: bytes) -> None:
        """Parse, and go on after a head with an offer, where the parser takes what follows for another protocol."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                if self.scope["method"] == "CONNECT":
                    return
                data = data[offer.args[0] :]
                self._resume_after_head()
            else:
                return

    def _resume_after_head(self) -> None:
        """Let a new parser read the same head without the offer; then it expects the body."""
        framing = [b"%b: %b\r\n" % header for header in self.headers if header[0] in FRAMING]
        version = self.parser.get_http_version().encode()
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._is_resuming = True
        self.parser.feed_data(b"POST / HTTP/%b\r\n%b\r\n" % (version, b"".join(framing)))

    def on_message_begin(self) -> None:
        if self._is_resuming:
            return
        super().on_message_begin()
        self._part = "head"
        if self._due_at is None:
            self._due_at = self._clients.now + self._timeouts.head_seconds

    def on_url(self, url: bytes) -> None:
        if not self._is_resuming:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._part == "head":
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_resuming:
            self._is_resuming = False
            return
        self._progress = True
        self._part = "body"
        self._due_at = self._clients.now + self._timeouts.body_seconds
        self._clients.mark_active(self)
        super().on_headers_complete()
        if self.scope["method"] == "CONNECT":
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._progress = True
        super().on_body(body)
        if self._due_at is not None and not self.cycle.response_complete:
            self._due_at = self._extend(self._due_at, len(body), self._timeouts.body_seconds)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() and self.scope["method"] != "CONNECT":
            return  # Of the head alone; the body is still to come.
        self._progress = True
        self._part = self._due_at = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Also begin to wait anew for what could not be read while the answer was made."""
        super().on_response_complete()
        if self._part is not None:
            seconds = self._timeouts.head_seconds if self._part == "head" else self._timeouts.body_seconds
            self._due_at = self._clients.now + seconds
        if not self._is_answering():
            self._clients.mark_idle(self)

    def close_if_overdue(self, now: float) -> None:
        """End the connection if the client has taken too long to send a request, or to read an answer."""
        unread = self.transport.get_write_buffer_size()
        if unread and self._unread:
            taken = max(0, self._unread - unread)
            self._unread_due_at = self._extend(self._unread_due_at, taken, self._timeouts.answer_seconds)
            if now >= self._unread_due_at:
                logger.info("A client did not read its answer; its connection was ended.")
                self.transport.abort()
        elif unread:
            self._unread_due_at = now + self._timeouts.answer_seconds
        self._unread = unread
        if self._due_at is not None and now >= self._due_at and not self.transport.is_closing():
            self._end_slow_sender()

    def resume_writing(self) -> None:
        self._unread = 0  # It has taken what there was; an answer that goes on fills the buffer again.
        super().resume_writing()

    def abort(self) -> None:
        """End the connection at once."""
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Answer and close; also called by uvicorn for what it cannot parse."""
        self._answer(BadRequest(msg))

    def _end_slow_sender(self) -> None:
        if self.pipeline or (self._part == "head" and self._is_answering()):
            return  # Nothing is read meanwhile; on_response_complete sets a new time.
        if self._part is None or (self._part == "body" and self.cycle.response_started):
            self.transport.close()
            return
        error = TooSlow(f"The {self._part} of the request did not arrive in time.")
        self._clients.record_rejection(self._scope_so_far(), error)
        self._answer(error)

    def _scope_so_far(self) -> Scope:
        if self._part == "body":
            return cast("Scope", self.scope)
        return {"type": "http", "method": "", "path": "", "headers": [], "client": self.client}

    def _answer(self, error: RelayError) -> None:
        """Send an error in the place of the app, which only hears that the client has gone."""
        body = msgspec.json.encode({"error": error.body()})
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body)
        if isinstance(error, Unavailable):
            head += b"retry-after: %d\r\n" % error.retry_after_seconds
        self.transport.write(STATUS_LINE[error.status] + head + b"\r\n" + body)
        self.transport.close()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _idle(self) -> None:
        """Wait for the next request. Uvicorn forgets to, after blank lines, and after a body that nobody read."""
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _extend(self, due_at: float, moved: int, seconds: float) -> float:
        """A deadline after so many bytes have moved; never later than if the waiting began now."""
        return min(due_at + moved / self._timeouts.bytes_per_second, self._clients.now + seconds)
