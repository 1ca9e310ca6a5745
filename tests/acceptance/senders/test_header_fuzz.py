"""Hostile headers over real sockets: each response conforms to the OpenAPI document, or the connection is closed.

`MAX_EXAMPLES` sets the number of random requests beyond those that try each header with each value, of which other runs
try a fifth. The requests then differ in each run.
"""

from __future__ import annotations

import base64
import hmac
import http.client
import json
import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import NamedTuple

import msgspec

from api.openapi.document import build_document
from models.decoding.strict import decode_as
from models.errors import ErrorBody
from tests.support.clients.signing import GITHUB_SECRET, WEBHOOK_SECRET
from tests.support.processes.stack import Stack, in_parallel
from tests.support.project import API_KEY

EXAMPLES = int(os.environ.get("MAX_EXAMPLES", "150"))
IS_RANDOM = "MAX_EXAMPLES" in os.environ
ANSWER_SECONDS = 15.0
"""The time without a response after which the server counts as hanging."""
PATIENCE_SECONDS = 2.0
"""The time after which an incomplete request is abandoned."""

Header = tuple[bytes, bytes]


class Route(NamedTuple):
    """A family of URLs: a concrete one, and its path in the document."""

    method: str
    target: str
    path: str
    body: bytes = b""


class Answer(NamedTuple):
    """A response."""

    status: int
    media_type: str
    body: bytes


MEMORY = {"session_id": "headers", "key": "k", "content": "c"}
ENVELOPE = {"command": "store_memory", "session_id": "headers", "data": {"key": "k", "content": "c"}}
ROUTES = (
    Route("POST", "/v1/webhook", "/v1/webhook", json.dumps(ENVELOPE).encode()),
    Route("POST", "/webhook?wait=1", "/webhook", json.dumps(ENVELOPE).encode()),
    Route("POST", "/v1/commands/store_memory", "/v1/commands/store_memory", json.dumps(MEMORY).encode()),
    Route("GET", "/v1/sessions/headers/memories", "/v1/sessions/{session_id}/memories"),
    Route("GET", "/v1/sessions/headers/events", "/v1/sessions/{session_id}/events"),
    Route("GET", "/v1/sessions/headers/export", "/v1/sessions/{session_id}/export"),
    Route("GET", "/v1/search?q=c", "/v1/search"),
    Route("GET", "/v1/deliveries", "/v1/deliveries"),
    Route("GET", "/v1/deliveries/none", "/v1/deliveries/{delivery_id}"),
    Route("GET", "/v1/dead-letters", "/v1/dead-letters"),
    Route("DELETE", "/v1/dead-letters/none", "/v1/dead-letters/{delivery_id}"),
    Route("POST", "/v1/dead-letters/replay", "/v1/dead-letters/replay"),
    Route("GET", "/v1/refusals", "/v1/refusals"),
    Route("GET", "/v1/keys", "/v1/keys"),
    Route("POST", "/v1/hooks/srh_none", "/v1/hooks/{token}", b"{}"),
    Route("GET", "/readyz", "/readyz"),
)
DOCUMENTED = {
    (method.upper(), path): {int(status) for status in operation["responses"]}
    for path, operations in build_document()["paths"].items()
    for method, operation in operations.items()
}
FRAMING = (b"content-length", b"transfer-encoding", b"expect", b"connection", b"upgrade")
"""Headers that determine where a request ends. For wrong ones, the connection may be closed."""
HEADERS = (
    *FRAMING,
    *(b"authorization", b"x-api-key", b"idempotency-key"),
    *(b"webhook-id", b"webhook-timestamp", b"webhook-signature", b"svix-id", b"svix-timestamp", b"svix-signature"),
    *(b"x-hub-signature-256", b"x-hub-signature", b"x-github-event", b"x-github-delivery"),
    *(b"content-type", b"content-encoding", b"accept", b"last-event-id"),
    *(b"x-forwarded-for", b"x-real-ip", b"host", b"cookie", b"range", b"traceparent"),
)
VALUES = (
    *(b"", b" ", b"\t", b"0", b"-1", b"1", b"5", b"+5", b"0x10", b"1_0", b"1e9", b"65536", b"9" * 30, b"NaN"),
    *(b"null", b"undefined", b"{}", b'"', b'""', b"'; DROP TABLE sessions; --", b"../../etc/passwd", b"%00", b"%s%n"),
    *(b"\xff\xfe", "ключ".encode(), "\u0661\u0662".encode(), "\U0001f600".encode(), b"\x80", b"\xc0\xaf"),
    *(b"\0", b"a\0b", b"a\rb", b"a\nb", b"a\r\n b", b"\x01\x02\x7f", b"\x1b[31m"),
    *(b"x" * 60_000, b"," * 60_000, b" " * 60_000 + b"x", b"\xff" * 60_000),
    *(b"Bearer", b"Bearer ", b"bearer \t x", b"Bearer " + b"x" * 5_000, b"Basic Og==", b"Basic \xff"),
    *(b"v1,", b"v1", b"v1,=", b"v1,x v1,y", b"v2,x", b"v1," + b"A" * 43 + b"=", b"sha256=", b"sha256=" + b"0" * 64),
    *(b"1614265330", b"1614265330.5", b"99999999999999999999", b"-1614265330", b"msg_1.2"),
    *(
        b"application/json",
        b"application/json; charset=utf-16",
        b"text/event-stream",
        b"multipart/form-data",
        b"/",
        b";",
    ),
    *(
        b"gzip",
        b"identity",
        b"br, gzip",
        b"gzip, gzip",
        b"deflate",
        b"chunked",
        b"chunked, chunked",
        b"identity, chunked",
    ),
    *(b"100-continue", b"200-maybe", b"close", b"keep-alive", b"upgrade", b"websocket", b"h2c", b"close, upgrade"),
    *(b"127.0.0.1", b"::1", b"127.0.0.1, 10.0.0.1", b"[::1]:80", b"256.1.1.1", b"example.org:99999", b"bytes=0-"),
    *(b"eyJhIjoxfQ", b"W10", b"MQ", b"MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkw"),
)
PRINTABLE = bytes(32 + byte % 95 for byte in range(256))
"""A table for `bytes.translate` that maps any byte to one that HTTP allows in a header."""


def test_no_header_causes_a_server_error(fuzzed: Stack) -> None:
    fuzzed.send("create_session", "headers", title="headers")
    choices = random.Random() if IS_RANDOM else random.Random(1)
    requests = [*each_header_with_each_value(choices), *made_up(choices, EXAMPLES)]
    wrong = [fault for fault in in_parallel(lambda request: try_out(fuzzed, *request), requests) if fault]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(requests)}:", *wrong[:20]])
    print(f"{len(requests)} requests")
    assert fuzzed.client.get("/readyz").status_code == 200
    assert "Bug:" not in fuzzed.log("api")
    assert "Traceback" not in fuzzed.log("api")


def each_header_with_each_value(choices: random.Random) -> Iterator[tuple[Route, list[Header]]]:
    """Yield each header and value, once or twice, on one of the routes, beside a valid key or instead of it."""
    for place, name in enumerate(HEADERS):
        for value in VALUES if IS_RANDOM or name in FRAMING else VALUES[place % 5 :: 5]:
            key = [] if choices.random() < 0.1 else [(b"x-api-key", API_KEY.encode())]
            yield choices.choice(ROUTES), [*key, *[(name, value)] * choices.choice((1, 1, 2))]


def made_up(choices: random.Random, number: int) -> Iterator[tuple[Route, list[Header]]]:
    """Generate several headers, of listed values or random bytes, beside a valid key or signature."""
    for _ in range(number):
        route = choices.choice(ROUTES)
        headers = [(choices.choice(HEADERS), random_value(choices)) for _ in range(choices.randint(1, 3))]
        good = choices.choice((key, signed, signed_by_github))(route)
        yield route, [*headers, *(header for header in good if choices.random() < 0.95)]


def key(_: Route) -> list[Header]:
    """Return the header of a valid key."""
    return [(b"x-api-key", API_KEY.encode())]


def signed(route: Route) -> list[Header]:
    """Return the headers of a valid Standard Webhooks signature."""
    delivery_id, timestamp = b"msg_headers", b"%d" % time.time()
    secret = base64.b64decode(WEBHOOK_SECRET.removeprefix("whsec_"))
    digest = hmac.digest(secret, b".".join([delivery_id, timestamp, route.body]), "sha256")
    signature = b"v1," + base64.b64encode(digest)
    return [(b"webhook-id", delivery_id), (b"webhook-timestamp", timestamp), (b"webhook-signature", signature)]


def signed_by_github(route: Route) -> list[Header]:
    """Return the headers of a valid GitHub signature."""
    signature = b"sha256=" + hmac.digest(GITHUB_SECRET.encode(), route.body, "sha256").hex().encode()
    return [(b"x-hub-signature-256", signature), (b"x-github-event", b"push"), (b"x-github-delivery", b"1")]


def random_value(choices: random.Random) -> bytes:
    """Generate a listed value, random bytes, or a mixture."""
    kind = choices.random()
    if kind < 0.5:
        return choices.choice(VALUES)
    noise = choices.randbytes(choices.choice((1, 3, 40, 2_000)))
    return noise if kind < 0.6 else noise.translate(PRINTABLE)


def try_out(stack: Stack, route: Route, headers: list[Header]) -> str:
    """Send a request. Returns the fault of the response, or an empty string."""
    try:
        answer = ask(stack.port, route, headers)
    except (OSError, http.client.HTTPException) as error:
        answer, fault = None, f"{type(error).__name__} {error}"
    else:
        fault = "" if answer is None else find_fault(route, answer)
        if answer is None and not any(name in FRAMING for name, _ in headers):
            fault = "no answer"
    shown = ", ".join(f"{name.decode()}: {value[:60]!r}" for name, value in headers if value != API_KEY.encode())
    return f"{route.method} {route.target} ({shown}): {fault}" if fault else ""


def find_fault(route: Route, answer: Answer) -> str:
    """Return the response's deviation from the document, or an empty string."""
    if answer.status not in DOCUMENTED[route.method, route.path]:
        return f"undocumented status {answer.status}: {answer.body[:200]!r}"
    if answer.status >= 500:
        return f"status {answer.status}: {answer.body[:200]!r}"
    if answer.status < 400:
        return ""
    if answer.media_type != "application/json":
        return f"an error as {answer.media_type!r}"
    try:
        error = msgspec.json.decode(answer.body, type=dict[str, msgspec.Raw])["error"]
        decode_as(bytes(error), ErrorBody)
    except Exception as unexpected:
        return f"an error in another form ({unexpected}): {answer.body[:200]!r}"
    return ""


def ask(port: int, route: Route, headers: list[Header]) -> Answer | None:
    """Send one request on a new connection. Returns None if it is closed without a response."""
    lies = any(name in FRAMING for name, _ in headers)
    with closing(socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # The server may refuse it before it is complete.
            connection.sendall(write(route, headers))
        if lies:
            connection.settimeout(PATIENCE_SECONDS)
            try:
                connection.recv(1, socket.MSG_PEEK)
            except TimeoutError:
                connection.shutdown(socket.SHUT_WR)
            except ConnectionResetError:
                return None
            connection.settimeout(ANSWER_SECONDS)
        return read(connection)


def write(route: Route, headers: list[Header]) -> bytes:
    """Return the bytes of the request, with defaults for what the headers leave out."""
    given = {name for name, _ in headers}
    usual = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    if b"transfer-encoding" not in given:
        usual.append((b"content-length", b"%d" % len(route.body)))
    lines = [b"%b: %b\r\n" % item for item in [*(item for item in usual if item[0] not in given), *headers]]
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (route.method.encode(), route.target.encode(), b"".join(lines), route.body)


def read(connection: socket.socket) -> Answer | None:
    """Read the response, of a stream only its head."""
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
    except (http.client.RemoteDisconnected, ConnectionResetError):
        return None
    media_type = response.headers.get_content_type()
    is_stream = media_type == "text/event-stream"
    return Answer(response.status, media_type, response.read(8) if is_stream else response.read())
