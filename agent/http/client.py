"""HTTP calls to one relay with one key: each gives the answer, or raises the error that the relay has told.

Nothing is repeated that may have taken effect already. What is, is told to whoever wants to know.
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
"""Of silence. Relays wait 40 s at most; behind a proxy it may be a little more."""
WHOLE_SECONDS = 600.0
"""For an answer from beginning to end, beside the silence that is allowed. Documents are streamed without it."""
ATTEMPTS = 4
PAUSE_SECONDS = 0.5
"""Before the second attempt, and twice as long before each further one, unless the relay says how long."""
LONGEST_PAUSE_SECONDS = 60.0
"""A relay that asks for more is believed, and not waited for."""
PART_BYTES = 65_536
KEPT_CONNECTIONS = 128
"""As many as an agent with many tasks needs at a time; they are made when they are needed."""
NO_CONTENT = 204
REDIRECTION = 300
"""From here on a status is no success."""
SUCCESS = 200
"""Below it, a status is none of an answer."""
MAX_ANSWER_BYTES = 256 * 1_048_576
"""Of an answer that is held in memory; documents are streamed."""
MAX_ERROR_BYTES = 1_048_576
SHOWN_LENGTH = 80

T = TypeVar("T")
Query = dict[str, Any]
Tell = Callable[[str], None]


class Client:
    """One relay. It shows its key to that address only; redirections are not followed."""

    def __init__(
        self, url: str, key: str, *, plain_hosts: Container[str] = frozenset(), tell: Tell | None = None
    ) -> None:
        """Raises SettingsError for an address or a key that cannot be one, and for an address that is neither encrypted
        nor on this machine nor among the hosts for which somebody insists. Connects with the first call."""
        self.url = parse_address(url)
        require_encryption(self.url, plain_hosts)
        self._headers = {"X-API-Key": parse_key(key), "Accept": "application/json", "User-Agent": "session-relay"}
        self._tell = tell or (lambda _: None)
        self._pool = make_pool(connections=KEPT_CONNECTIONS)

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def get(self, path: str, query: Query | None = None) -> dict[str, Any]:
        """The answer of a read."""
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
        """Status and content of a success (empty if it has none), or of an answer with an `accepted` status. What the
        relay refuses to look at yet (429) is sent again after the time that it asks for; what is `repeatable` also when
        the relay is away or its answer got lost."""

        def once() -> tuple[int, dict[str, Any]]:
            if body is not None and not isinstance(body, bytes):
                body.seek(0)
            with complete_within(silence_seconds + whole_seconds):
                response = self._request(
                    method, path, query, body=body, headers=headers, silence_seconds=silence_seconds, accepted=accepted
                )
                return response.status, self._content(response, most_bytes=most_bytes)

        return self._retry(once, repeatable=repeatable)

    @contextmanager
    def stream(self, path: str, query: Query | None = None) -> Iterator[Iterator[bytes]]:
        """A document part by part, within the block. An end before its end raises Unavailable."""
        response = self._retry(lambda: self._request("GET", path, query), repeatable=False)
        try:
            yield self._parts(response)
        finally:
            response.close()
            response.release_conn()

    def close(self) -> None:
        """Let go of the connections."""
        self._pool.clear()

    def _retry(self, once: Callable[[], T], *, repeatable: bool) -> T:
        for attempt in range(1, ATTEMPTS):
            try:
                return once()
            except (Unavailable, TooManyRequests) as error:
                pause = max(PAUSE_SECONDS * float(2 ** (attempt - 1)), error.retry_after_seconds)
                again = isinstance(error, TooManyRequests) or (repeatable and error.retryable)
                if not again or pause > LONGEST_PAUSE_SECONDS:
                    raise
                self._tell(f"{error.message} Trying again in {pause:g} s.")
            time.sleep(pause)
        return once()

    def odd(self, what: str) -> NoRelay:
        """The error of an answer that no relay gives. What it says stays unsaid: it may hold a key or a token."""
        return NoRelay(f"What answers at {self.url} is no session-relay: {what}.", hint=CHECK_ADDRESS)

    def _content(self, response: urllib3.BaseHTTPResponse, *, most_bytes: int) -> dict[str, Any]:
        if response.status < SUCCESS:
            response.close()
            raise self.odd(f"it answers HTTP {response.status} and nothing after it")
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
            raise self.odd(f"it answers HTTP {response.status} with {len(body):,} bytes of {kind!r}, no JSON object")
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
        """The answer before its content was read. Raises the error of one that is no success."""
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
            raise self._away(error) from error
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
                raise self.odd(f"its answer has more than {most_bytes:,} bytes")
        response.release_conn()
        return bytes(parts)

    def _parts(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        try:
            yield from response.stream(PART_BYTES)
        except (HTTPError, OSError) as error:
            raise self._away(error) from error

    def _away(self, error: Exception) -> Unavailable:
        away = self._describe(error)
        away.retry_after_seconds = 0
        return away

    def _describe(self, error: Exception) -> Unavailable:
        """What has happened, in words that need no knowledge of this client."""
        match error:
            case SSLError():
                return NoRelay(
                    f"No trustworthy connection to {self.url} comes about: {error}.",
                    hint="Check the address, and the certificate there.",
                )
            case NameResolutionError():
                return Unavailable(f"The host of {self.url} is not known.", hint="Check the address.")
            case NewConnectionError():
                reason = "nothing listens there" if "refused" in str(error) else str(error).rpartition(": ")[2]
                return Unavailable(
                    f"The relay at {self.url} cannot be reached: {reason}.", hint="Start it, or check the address."
                )
            case ConnectTimeoutError():  # What cannot be reached is a kind of this to urllib3.
                return Unavailable(f"The relay at {self.url} does not answer.")
            case ReadTimeoutError():
                return Unavailable(f"The relay at {self.url} took too long to answer.")
        cause = next((part for part in (*error.args, error.__cause__) if isinstance(part, HTTPException)), None)
        if cause is not None and not isinstance(cause, RemoteDisconnected | IncompleteRead):
            told = type(cause).__name__ if isinstance(cause, BadStatusLine) else str(cause)
            return Unavailable(f"The answer of {self.url} is no valid HTTP: {told[:SHOWN_LENGTH]}.", hint=CHECK_ADDRESS)
        return Unavailable(f"The connection to {self.url} broke off.")
