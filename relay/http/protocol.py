"""HTTP/1.1 with limits. Uvicorn's fast parser has none: it would buffer headers without end, or wait forever for a
client that does not finish its request or does not read its response."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

import httptools
import msgspec
from starlette.types import ASGIApp, Scope
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from models.errors import BadRequest, RelayError, TooSlow, Unavailable
from relay.http.access_log import STATE_KEY, RequestLog, request_log
from relay.http.connection_limits import ConnectionRegistry

MAX_HEAD_BYTES = 65_536
"""Request line and headers, or trailers; common servers allow 8 to 64 kB."""

STEP_BYTES = 4_096
"""Bytes that are parsed at a time. Requests that were sent together wait in memory, where each takes much more than on
the wire: only those of one step do."""

RESPOND = "session_relay.respond"
"""An ASGI extension of this server: a function that sends a whole response at once; see `LimitedHttpProtocol`."""

Respond = Callable[[int, bytes, bytes], bool]

AnswerAtOnce = Callable[[Scope, bytes, Callable[[ASGIApp], None]], bool]
"""A method `answer_at_once` of an app: takes a request that has arrived in whole, and answers it by RESPOND. It gets a
function that runs another app in a task instead. Returns False if the app itself has to run in a task."""

FRAMING = (b"content-length", b"transfer-encoding")
"""Headers that delimit the body."""

logger = logging.getLogger(__name__)


class _HoldingFlowControl(FlowControl):
    """Reads nothing while further requests wait, even if the app listens for the end of the connection."""

    is_holding = False

    def resume_reading(self) -> None:
        if not self.is_holding:
            super().resume_reading()


class LimitedHttpProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, with an error in the usual form for requests that are malformed, too long or too slow. Offers
    to upgrade the protocol are ignored (RFC 9110, 7.8), and so are trailers.

    Of requests that were sent together, few are parsed before the first is answered; the rest is left unread. An error
    is sent after the responses to the requests before it.

    It sets deadlines instead of timers; `ConnectionRegistry` checks them periodically.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clients = cast("ConnectionRegistry", self.server_state)
        self._timeouts = self._clients.timeouts
        self._peer = ""
        """The address of the other end of the connection."""
        self._progress = False
        self._bytes_without_progress = 0
        self._unparsed = b""
        """Bytes of further requests, while parsed ones wait."""
        self._malformed: RelayError | None = None
        """The error to send once the requests before it are answered."""
        self._answering: RequestResponseCycle | None = None
        """The request that was passed to the app last; `cycle` is the one that was parsed last."""
        self._starting: RequestResponseCycle | None = None
        """The same, until the bytes that came with its head are parsed: then the app may answer it at once."""
        self._answer_at_once: AnswerAtOnce | None = getattr(self.app, "answer_at_once", None)
        self._part: Literal["head", "body"] | None = None
        """The part of the request that is arriving."""
        self._is_resuming = False
        """Whether the parser reads the head of a request again."""
        self._is_stopping = self._is_last = False
        self._due_at: float | None = None
        """Deadline for the client to send the first head, or the rest of a part."""
        self._idle_due_at: float | None = None
        """Deadline for the client to begin another request."""
        self._unread = 0
        """Bytes of responses that the client had not read at the last check."""
        self._unread_due_at = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = self._flow = _HoldingFlowControl(transport)
        self._peer = self.client[0] if self.client else ""
        self._due_at = self._clients.now + self._timeouts.head_seconds
        self._is_last = self._clients.is_ending
        if self._clients.make_room():
            self._clients.mark_idle(self)
        else:
            self._answer(Unavailable("Too many connections are open at the moment."))

    def connection_lost(self, exc: Exception | None) -> None:
        self._clients.mark_active(self)
        self._unparsed = b""
        self._tell_disconnected()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._idle_due_at = None
        self._unparsed += data
        self._parse_steps()
        if self._due_at is None and not self._is_answering() and not self.transport.is_closing():
            self._idle()

    def _parse_steps(self) -> None:
        """Parse what has arrived, until a request has to wait for another."""
        data, at = self._unparsed, 0
        while at < len(data) and not self.pipeline and self._malformed is None:
            if at and self.transport.is_closing():
                break
            step = data[at : at + STEP_BYTES]
            at += len(step)
            self._progress = False
            try:
                self._parse(step)
            except httptools.HttpParserError:
                self._refuse("Invalid HTTP request received.")
                break
            finally:
                if self._starting is not None:
                    self._start(self._starting)
            self._bytes_without_progress = 0 if self._progress else self._bytes_without_progress + len(step)
            if self._bytes_without_progress > MAX_HEAD_BYTES:
                self._refuse(f"The head of the request has more than {MAX_HEAD_BYTES:,} bytes.")
        self._unparsed = data[at:] if self._malformed is None else b""
        self._flow.is_holding = bool(self.pipeline) or self._malformed is not None
        if self._flow.is_holding:
            self._flow.pause_reading()

    def _refuse(self, message: str) -> None:
        """Answer the request that is arriving, after those before it."""
        if self.pipeline and self._arrives(self.pipeline[0][0]):
            self.pipeline.popleft()
        if self._is_answering() and not self._arrives(self._answering):
            self._part = self._due_at = None
            self._malformed = BadRequest(message)
        else:
            self.send_400_response(message)

    def _arrives(self, cycle: RequestResponseCycle | None) -> bool:
        """Whether the body of this request is what is being parsed."""
        return self._part == "body" and cycle is not None and cycle.scope is self.scope

    def _parse(self, data: bytes) -> None:
        """Parse, and go on after a head that offers an upgrade, where the parser would stop."""
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
        """Feed the head without the offer to a new parser, which then expects the body."""
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
        if self._part != "head":
            return
        # As uvicorn does it; there are so many headers that a call for each counts.
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._is_resuming:
            self._is_resuming = False
            return
        self._progress = True
        self._part = "body"
        self._due_at = self._clients.now + self._timeouts.body_seconds
        self._clients.mark_active(self)
        super().on_headers_complete()
        if self._is_last or self.scope["method"] == "CONNECT":
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._progress = True
        super().on_body(body)
        if self._due_at is not None and not self.cycle.response_complete and not self._is_stopping:
            self._due_at = self._extend(self._due_at, len(body), self._timeouts.body_seconds)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() and self.scope["method"] != "CONNECT":
            return  # The end of the head only; the body follows.
        self._progress = True
        self._part = self._due_at = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on as uvicorn does, with a deadline instead of its timer; also restart the timeout of a part that could
        not be read during the response."""
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            if self.pipeline:
                cycle, app = self.pipeline.pop()
                self._start_asgi_task(cycle, app)
                self._start(cycle)
            elif self._malformed is not None:
                self._answer(self._malformed)
                return
            else:
                self._idle()
            if self._flow.is_holding:
                self._parse_steps()
            self.flow.resume_reading()
        if self._part is not None:
            seconds = self._timeouts.head_seconds if self._part == "head" else self._timeouts.body_seconds
            self._due_at = self._clients.now + seconds
        if not self._is_answering():
            self._clients.mark_idle(self)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Also offer the app to send a whole response at once, and to say more for the line in the access log. Leaves
        it to `_start` to start the app."""
        self._answering = self._starting = cycle
        scope = cast("Scope", cycle.scope)
        scope["extensions"] = {RESPOND: partial(self._respond, cycle)}
        cycle.access_log = self._clients.access_log.is_enabled
        if cycle.access_log:
            log = RequestLog(self._clients.access_log, scope, peer=self._peer)
            scope["state"][STATE_KEY] = log
            cycle.access_logger = log  # type: ignore[assignment]

    def _start(self, cycle: RequestResponseCycle) -> None:
        """Let the app answer the request at once, if it can, else in a task."""
        self._starting = None
        run = partial(super()._start_asgi_task, cycle)
        if not (
            self._answer_at_once
            and not (cycle.more_body or cycle.disconnected)
            and self._answer_at_once(cast("Scope", cycle.scope), bytes(cycle.body), run)
        ):
            run(self.app)

    def _respond(self, cycle: RequestResponseCycle, status: int, lines: bytes, body: bytes) -> bool:
        """Send a response, its head and its body in one write. Returns False, having done nothing, if the app has to
        send it by ASGI messages: another one has begun, or the client does not read.

        The lines of the headers, each with its line break, include a content-length, and neither other framing nor
        `connection`.
        """
        if cycle.response_started or cycle.flow.write_paused or cycle.scope["method"] == "HEAD":
            return False
        if cycle.disconnected:
            return True
        date = b"".join([b"%b: %b\r\n" % header for header in cycle.default_headers])
        if not cycle.keep_alive:
            lines += b"connection: close\r\n"
        scope = cast("Scope", cycle.scope)
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        if log := scope["state"].pop(STATE_KEY, None):
            log.answered(status)
        cycle.transport.write(b"%b%b%b\r\n%b" % (STATUS_LINE[status], date, lines, body))
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        # This function refers to the scope in turn, as the log did: without them, no garbage is left to collect.
        scope["extensions"] = {}
        cycle.on_response()
        return True

    def close_after_answer(self) -> None:
        """Close the connection after the answer to the request that has been sent last, or is still to come."""
        self._is_last = True
        if self._is_answering():
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Close the connection, or let the client finish its request; uvicorn calls it when the process stops."""
        super().shutdown()
        self._is_stopping = True
        ends_at = self._clients.now + self._timeouts.last_seconds
        self._unread_due_at = min(self._unread_due_at, ends_at)
        if self._due_at is not None:
            self._due_at = min(self._due_at, ends_at)

    def close_if_overdue(self, now: float) -> None:
        """Close the connection if the client is too slow to send a request, or to read a response."""
        unread = self.transport.get_write_buffer_size()
        if unread and self._unread:
            taken = max(0, self._unread - unread)
            self._unread_due_at = self._extend(self._unread_due_at, taken, self._timeouts.answer_seconds)
            if now >= self._unread_due_at:
                logger.info("Closed a connection: the client did not read its response.")
                self.transport.abort()
        elif unread:
            seconds = self._timeouts.last_seconds if self._is_stopping else self._timeouts.answer_seconds
            self._unread_due_at = now + seconds
        self._unread = unread
        if self._idle_due_at is not None and now >= self._idle_due_at:
            self.transport.close()
        elif self._due_at is not None and now >= self._due_at and not self.transport.is_closing():
            self._end_slow_sender()

    def resume_writing(self) -> None:
        self._unread = 0  # The client has read everything so far; more of the response fills the buffer again.
        super().resume_writing()

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Respond and close; uvicorn calls it for requests that it cannot parse."""
        self._answer(BadRequest(msg))

    def _end_slow_sender(self) -> None:
        if self.pipeline or (self._part == "head" and self._is_answering()):
            return  # Nothing is read meanwhile; on_response_complete sets a new deadline.
        if self._part is None or (self._part == "body" and self.cycle.response_started):
            self.transport.close()
            return
        if self._is_stopping:
            self._answer(Unavailable("The relay is restarting; nothing was stored."))
            return
        error = TooSlow(f"The {self._part} of the request did not arrive in time.")
        self._clients.record_rejection(self._scope_so_far(), error)
        self._answer(error)

    def _scope_so_far(self) -> Scope:
        if self._part == "body" and "path" in self.scope:  # Not if the target could not be parsed.
            return cast("Scope", self.scope)
        return {"type": "http", "method": "", "path": "", "headers": [], "client": self.client}

    def _answer(self, error: RelayError) -> None:
        """Send an error instead of the app, which only learns that the client has disconnected."""
        body = msgspec.json.encode({"error": error.body()})
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body)
        if isinstance(error, Unavailable):
            head += b"retry-after: %d\r\n" % error.retry_after_seconds
        self.transport.write(STATUS_LINE[error.status] + head + b"\r\n" + body)
        self.transport.close()
        self._log(error)
        self._tell_disconnected()

    def _log(self, error: RelayError) -> None:
        """Write the line of a request that the app does not answer."""
        if self._clients.access_log.is_enabled:
            scope = self._scope_so_far()
            log = request_log(scope) or RequestLog(self._clients.access_log, {**scope, "state": {}}, peer=self._peer)
            log.cause = error.code
            log.answered(error.status)

    def _tell_disconnected(self) -> None:
        """Tell the app that nobody is left to read its response."""
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()
            if log := request_log(cast("Scope", self._answering.scope)):
                log.is_disconnected = True

    def _is_answering(self) -> bool:
        return self._answering is not None and not self._answering.response_complete

    def _idle(self) -> None:
        """Start the keep-alive timeout, also after blank lines and after a body that was not read."""
        self._idle_due_at = self._clients.now + self.timeout_keep_alive

    def _extend(self, due_at: float, moved: int, seconds: float) -> float:
        """Returns the deadline extended by `moved` bytes, but never beyond `seconds` from now."""
        return min(due_at + moved / self._timeouts.bytes_per_second, self._clients.now + seconds)
