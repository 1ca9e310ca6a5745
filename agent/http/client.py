"""HTTP client for one relay and one key: each call returns the response, or raises the relay's error.

The client never retries a request that may have taken effect, unless it is repeatable. It reports each retry to a
callback.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from http.client import BadStatusLine, HTTPException, IncompleteRead, RemoteDisconnected
from types import MappingProxyType
from typing import IO, Any, TypeVar
from urllib.parse import urlencode

import msgspec
import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from agent.http.error_responses import CHECK_ADDRESS, NoRelay, error_of
from agent.http.relay_url import parse_address, parse_key, require_encryption
from agent.http.response_deadlines import complete_within, make_pool
from models.errors import TooManyRequests, Unavailable

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
"""Read timeout. Relays wait 40 s at most; a proxy may add a little."""
WHOLE_SECONDS = 600.0
"""Time limit of a whole response, in addition to the read timeout. Does not apply to streamed documents."""
ATTEMPTS = 4
PAUSE_SECONDS = 0.5
"""The pause before the second attempt. It doubles with each further one, unless the relay sends Retry-After."""
LONGEST_PAUSE_SECONDS = 60.0
"""If the relay asks for a longer pause, the client gives up instead of waiting."""
PART_BYTES = 65_536
KEPT_CONNECTIONS = 128
"""Enough for an agent with many concurrent tasks. Connections are opened on demand."""
NO_CONTENT = 204
REDIRECTION = 300
"""The lowest status that is not a success."""
SUCCESS = 200
"""The lowest status of a final response."""
MAX_ANSWER_BYTES = 256 * 1_048_576
"""Maximum size of a response held in memory; documents are streamed."""
MAX_ERROR_BYTES = 1_048_576
_ERRORS = frozenset(range(400, 600)) - {TooManyRequests.status}
SHOWN_LENGTH = 80

T = TypeVar("T")
Query = dict[str, Any]
OnRetry = Callable[[str], None]


class Client:
    """A client of one relay. It sends its key only to that URL, and does not follow redirects."""

    def __init__(
        self, url: str, key: str, *, plain_hosts: Container[str] = frozenset(), on_retry: OnRetry | None = None
    ) -> None:
        """Raises SettingsError for an invalid URL or key, and for an http URL unless its host is this machine or one of
        `plain_hosts`. Connects with the first call."""
        self.url = parse_address(url)
        require_encryption(self.url, plain_hosts)
        self._headers = {"X-API-Key": parse_key(key), "Accept": "application/json", "User-Agent": "session-relay"}
        self._on_retry = on_retry or (lambda _: None)
        self._pool = make_pool(connections=KEPT_CONNECTIONS)

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def get(self, path: str, query: Query | None = None) -> dict[str, Any]:
        """Send a read and return the response's content."""
        return self.call("GET", path, query)[1]

    def call(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        *,
        body: bytes | IO[bytes] | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        repeatable: bool = False,
        accepted: Container[int] = (),
        silence_seconds: float = ANSWER_SECONDS,
        whole_seconds: float = WHOLE_SECONDS,
        most_bytes: int = MAX_ANSWER_BYTES,
    ) -> tuple[int, dict[str, Any]]:
        """Send a request. Returns status and content (empty for 204) of a success, or of a response with an `accepted`
        status. Retries a retryable 429 after the time that the relay asks for; retries a `repeatable` request also when
        the relay is unavailable or the response was lost."""

        def once() -> tuple[int, dict[str, Any]]:
            if body is not None and not isinstance(body, bytes):
                body.seek(0)
            with complete_within(silence_seconds + whole_seconds):
                response = self._request(
                    method, path, query, body=body, headers=headers, silence_seconds=silence_seconds, accepted=accepted
                )
                return response.status, self._content(response, most_bytes=most_bytes)

        return self._retry(once, repeatable=repeatable)

    def exchange(self, method: str, path: str, *, body: bytes | None = None) -> tuple[int, Mapping[str, str], bytes]:
        """Send any request, and return status, headers and body of its response, also of an error; but retries a
        retryable 429. Never follows redirects."""
        response = self._retry(lambda: self._request(method, path, None, body=body, accepted=_ERRORS), repeatable=False)
        return response.status, response.headers, self._whole(response, most_bytes=MAX_ANSWER_BYTES)

    @contextmanager
    def stream(
        self, path: str, query: Query | None = None, *, accept: str = "application/json"
    ) -> Iterator[Iterator[bytes]]:
        """Stream a document in parts within the block. Raises Unavailable if it ends early."""
        headers = {"Accept": accept}
        response = self._retry(lambda: self._request("GET", path, query, headers=headers), repeatable=False)
        try:
            yield self._parts(response)
        finally:
            response.close()
            response.release_conn()

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def _retry(self, once: Callable[[], T], *, repeatable: bool) -> T:
        for attempt in range(1, ATTEMPTS):
            try:
                return once()
            except (Unavailable, TooManyRequests) as error:
                pause = max(PAUSE_SECONDS * float(2 ** (attempt - 1)), error.retry_after_seconds)
                again = error.retryable and (repeatable or isinstance(error, TooManyRequests))
                if not again or pause > LONGEST_PAUSE_SECONDS:
                    raise
                self._on_retry(f"{error.message} Retrying in {pause:g} s.")
            time.sleep(pause)
        return once()

    def invalid_response(self, reason: str) -> NoRelay:
        """The error for a response that no relay sends. Does not quote the content, which may hold a key or token."""
        return NoRelay(f"The server at {self.url} is not a session-relay: {reason}.", hint=CHECK_ADDRESS)

    def _content(self, response: urllib3.BaseHTTPResponse, *, most_bytes: int) -> dict[str, Any]:
        if response.status < SUCCESS:
            response.close()
            raise self.invalid_response(f"it responds only HTTP {response.status}, without a final response")
        if response.status == NO_CONTENT:
            response.release_conn()
            return {}
        body = self._whole(response, most_bytes=most_bytes)
        try:
            content = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            content = None
        if not isinstance(content, dict):
            kind = response.headers.get("content-type", "no type")[:SHOWN_LENGTH]
            raise self.invalid_response(
                f"it responds HTTP {response.status} with {len(body):,} bytes of {kind!r} instead of a JSON object"
            )
        return content

    def _request(
        self,
        method: str,
        path: str,
        query: Query | None,
        *,
        body: bytes | IO[bytes] | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        silence_seconds: float = ANSWER_SECONDS,
        accepted: Container[int] = (),
    ) -> urllib3.BaseHTTPResponse:
        """Send a request and return the response with its content unread. Raises the error of an unsuccessful one."""
        if not path.startswith("/"):  # It would become a part of the host's name, and the key would go there.
            raise ValueError(f"Invalid path {path!r}: it must begin with a slash.")
        given = [(name, value) for name, value in (query or {}).items() if value not in (None, [], ())]
        url = f"{self.url}{path}" + (f"?{urlencode(given, doseq=True)}" if given else "")
        more = {} if body is None else {"Content-Type": "application/json"}
        try:
            response = self._pool.request(
                method,
                url,
                body=body,
                headers={**self._headers, **more, **headers},
                preload_content=False,
                redirect=False,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=silence_seconds),
            )
        except (HTTPError, OSError) as error:
            raise self._connection_error(error) from error
        if response.status >= REDIRECTION and response.status not in accepted:
            body = self._whole(response, most_bytes=MAX_ERROR_BYTES)
            raise error_of(response.status, body, response.headers)
        return response

    def _whole(self, response: urllib3.BaseHTTPResponse, *, most_bytes: int) -> bytes:
        parts = bytearray()
        for part in self._parts(response):
            parts += part
            if len(parts) > most_bytes:
                response.close()
                raise self.invalid_response(f"its response has more than {most_bytes:,} bytes")
        response.release_conn()
        return bytes(parts)

    def _parts(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        try:
            yield from response.stream(PART_BYTES)
        except (HTTPError, OSError) as error:
            raise self._connection_error(error) from error

    def _connection_error(self, error: Exception) -> Unavailable:
        unavailable = self._describe(error)
        unavailable.retry_after_seconds = 0
        return unavailable

    def _describe(self, error: Exception) -> Unavailable:
        """Describe a connection error for users."""
        match error:
            case SSLError():
                return NoRelay(
                    f"Cannot establish a secure connection to {self.url}: {error}.",
                    hint="Check the URL and the server's certificate.",
                )
            case NameResolutionError():
                return Unavailable(f"The host name of {self.url} cannot be resolved.", hint="Check the URL.")
            case NewConnectionError():
                reason = "connection refused" if "refused" in str(error) else str(error).rpartition(": ")[2]
                return Unavailable(
                    f"The relay at {self.url} cannot be reached: {reason}.", hint="Start it, or check the URL."
                )
            case ConnectTimeoutError():  # NewConnectionError is a subclass of this.
                return Unavailable(f"The relay at {self.url} does not respond.")
            case ReadTimeoutError():
                return Unavailable(f"The relay at {self.url} took too long to respond.")
        cause = next((part for part in (*error.args, error.__cause__) if isinstance(part, HTTPException)), None)
        if cause is not None and not isinstance(cause, RemoteDisconnected | IncompleteRead):
            reason = type(cause).__name__ if isinstance(cause, BadStatusLine) else str(cause)
            return Unavailable(
                f"The server at {self.url} sent invalid HTTP: {reason[:SHOWN_LENGTH]}.", hint=CHECK_ADDRESS
            )
        return Unavailable(f"The connection to {self.url} was lost.")
