"""A request refused before its body is read leaves the connection in order: the next one gets its response."""

from __future__ import annotations

import socket

import pytest

from tests.support.processes.serving import Serving
from tests.support.project import API_KEY

SECOND = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
KEY = f"X-API-Key: {API_KEY}\r\n".encode()
REFUSED = {
    "no key": (b"POST /v1/webhook HTTP/1.1\r\nHost: x\r\n", 401),
    "unknown hook": (b"POST /v1/hooks/srh_none HTTP/1.1\r\nHost: x\r\n", 404),
    "nothing there": (b"POST /v1/nothing HTTP/1.1\r\nHost: x\r\n" + KEY, 404),
    "wrong method": (b"PUT /v1/webhook HTTP/1.1\r\nHost: x\r\n" + KEY, 405),
    "wrong type": (b"POST /v1/webhook HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n" + KEY, 415),
    "wrong parameter": (b"POST /v1/webhook?nope=1 HTTP/1.1\r\nHost: x\r\n" + KEY, 422),
    "bad encoding": (b"POST /v1/webhook HTTP/1.1\r\nHost: x\r\nContent-Encoding: br\r\n" + KEY, 415),
}
SIZES = (2, 70_000, 900_000)


def frame(body: bytes, *, is_chunked: bool) -> tuple[bytes, bytes]:
    """Return the header and the bytes of a body."""
    if not is_chunked:
        return b"Content-Length: %d\r\n\r\n" % len(body), body
    half = len(body) // 2
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:]))
    return b"Transfer-Encoding: chunked\r\n\r\n", chunks + b"0\r\n\r\n"


def read_answer(connection: socket.socket) -> tuple[int, bytes]:
    """Return the status and head of the next response."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(1)
        if not part:
            return 0, data
        data += part
    head = data.lower()
    size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    while size > 0:
        size -= len(connection.recv(size))
    return int(data.split(b" ", 2)[1]), head


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("when", ["at once", "after the answer", "pipelined"])
def test_the_next_request_on_the_connection_gets_its_response(
    relay: Serving, name: str, size: int, is_chunked: bool, when: str
) -> None:
    head, status = REFUSED[name]
    framing, body = frame(b'"' + b"x" * size + b'"', is_chunked=is_chunked)
    with socket.create_connection(("127.0.0.1", relay.port), timeout=10) as connection:
        connection.sendall(head + framing)
        if when == "pipelined":
            connection.sendall(body + SECOND)
        elif when == "at once":
            connection.sendall(body)
        first, first_head = read_answer(connection)
        assert first == status
        if when == "after the answer":
            connection.sendall(body)
        if when != "pipelined":
            connection.sendall(SECOND)
        second, _ = read_answer(connection)
        assert second == 200, (first_head, second)


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_request_with_expect_100_continue_closes_the_connection(relay: Serving, name: str) -> None:
    """The client need not send the body then, and its next request would be taken for the body."""
    head, status = REFUSED[name]
    with socket.create_connection(("127.0.0.1", relay.port), timeout=10) as connection:
        connection.sendall(head + b"Expect: 100-continue\r\nContent-Length: 500\r\n\r\n")
        first, first_head = read_answer(connection)
        assert first == status
        assert b"\r\nconnection: close\r\n" in first_head
        assert connection.recv(1) == b""


def test_an_accepted_request_with_expect_100_continue_keeps_the_connection(relay: Serving) -> None:
    body = b'{"command": "store_memory", "session_id": "s", "data": {"content": 1}}'
    with socket.create_connection(("127.0.0.1", relay.port), timeout=10) as connection:
        head = b"POST /v1/webhook HTTP/1.1\r\nHost: x\r\n" + KEY
        connection.sendall(head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert read_answer(connection)[0] == 100
        connection.sendall(body + SECOND)
        assert [read_answer(connection)[0] for _ in range(2)] == [202, 200]
