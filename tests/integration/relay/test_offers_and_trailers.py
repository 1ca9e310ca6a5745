"""Over raw sockets: an offer of another protocol changes nothing, and a trailer is never treated as a header."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from relay.http.connection_limits import Timeouts
from tests.support.processes.edge import Edge
from tests.support.processes.serving import Serving
from tests.support.project import API_KEY
from tests.support.sockets import receive_all, send_parts

BODY = b'{"size":' + b"1" * 90 + b"}"
OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\nUpgrade: h2c\r\n",
    "websocket": b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n",
    "TLS": b"Connection: upgrade\r\nUpgrade: TLS/1.2\r\n",
    "several": b"Connection: Upgrade\r\nUpgrade: foo/2, h2c\r\nUpgrade: websocket\r\n",
    "closing": b"Connection: close, Upgrade\r\nUpgrade: h2c\r\n",
}
LENGTH = b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n10;a=b\r\n%b\r\n%x\r\n%b\r\n0\r\nX-Trailer: 1\r\n\r\n" % (
    BODY[:16],
    len(BODY) - 16,
    BODY[16:],
)
NEXT = b"POST /body HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    """A server whose /body returns the size of a body, and whose /headers returns the headers."""
    with Edge(Timeouts()) as edge:
        yield edge


def answers(data: bytes) -> list[dict[str, object]]:
    """Return the bodies of all responses, which must all be successes."""
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), data
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        found.append(json.loads(rest[:length]))
        data = rest[length:]
    return found


def send_in_parts(edge: Edge, parts: list[bytes]) -> bytes:
    connection = edge.connect()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    send_parts(connection, parts)
    return receive_all(connection)


@pytest.mark.parametrize("framed", [LENGTH, CHUNKED], ids=["with a length", "chunked"])
@pytest.mark.parametrize("offer", OFFERS)
def test_a_body_is_read_completely_whatever_the_offer(edge: Edge, offer: str, framed: bytes) -> None:
    request = b"POST /body HTTP/1.1\r\nHost: x\r\n" + OFFERS[offer] + framed
    head = request.index(b"\r\n\r\n") + 4
    expected = [{"size": len(BODY)}] + [{"size": 2}] * (offer != "closing")
    following = b"" if offer == "closing" else NEXT
    for parts in (
        [request + following],
        [request[:head], request[head:], following],
        [request[: head + 20], request[head + 20 :] + following],
        [request[number : number + 1] for number in range(len(request))] + [following],
        [request[: head - 2], request[head - 2 :], following],
    ):
        assert answers(send_in_parts(edge, parts)) == expected, parts


@pytest.mark.parametrize("offer", OFFERS)
def test_offers_may_follow_each_other_on_a_connection(edge: Edge, offer: str) -> None:
    without_body = b"POST /body HTTP/1.1\r\nHost: x\r\n" + OFFERS["h2c"] + b"\r\n"
    request = b"POST /body HTTP/1.1\r\nHost: x\r\n" + OFFERS[offer]
    data = without_body + without_body + request + CHUNKED
    data += b"" if offer == "closing" else request + LENGTH + NEXT
    sizes = [answer["size"] for answer in answers(send_in_parts(edge, [data]))]
    assert sizes == [0, 0, len(BODY)] + ([] if offer == "closing" else [len(BODY), 2])


def test_a_request_inside_the_body_of_an_offer_is_not_served(edge: Edge) -> None:
    inner = NEXT
    request = b"POST /body HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (OFFERS["h2c"], len(inner), inner)
    assert answers(send_in_parts(edge, [request + NEXT])) == [{"size": len(inner)}, {"size": 2}]


def test_a_large_body_after_an_offer_is_read(edge: Edge) -> None:
    body = b" " * 1_000_000
    head = b"POST /body HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n" % (OFFERS["h2c"], len(body))
    assert answers(send_in_parts(edge, [head, body, NEXT])) == [{"size": len(body)}, {"size": 2}]


def test_a_body_after_an_offer_that_is_too_large_is_refused(edge: Edge) -> None:
    head = b"POST /body HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n" % (OFFERS["h2c"], 2_000_000)
    assert send_in_parts(edge, [head, b" " * 2_000_000]).startswith(b"HTTP/1.1 413")


def test_contradictory_framing_beside_an_offer_is_refused(edge: Edge) -> None:
    for framing in (
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 2\r\nContent-Length: 3\r\n",
    ):
        answer = send_in_parts(edge, [b"POST /body HTTP/1.1\r\nHost: x\r\n" + OFFERS["h2c"] + framing + b"\r\n{}"])
        assert answer.startswith(b"HTTP/1.1 400"), answer


def test_expect_100_continue_works_beside_an_offer(edge: Edge) -> None:
    connection = edge.connect(
        b"POST /body HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n" + OFFERS["h2c"] + LENGTH[:22]
    )
    assert connection.recv(1000).startswith(b"HTTP/1.1 100 Continue")
    connection.sendall(LENGTH[22:] + NEXT)
    assert answers(receive_all(connection)) == [{"size": len(BODY)}, {"size": 2}]


@pytest.mark.parametrize("target", [b"x.example:443", b"/body"])
def test_connect_is_refused_and_nothing_after_it_is_read(edge: Edge, target: bytes) -> None:
    answer = send_in_parts(edge, [b"CONNECT %b HTTP/1.1\r\nHost: x\r\n\r\n" % target + NEXT, NEXT])
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 405"))
    assert answer.count(b"HTTP/1.1") == 1
    assert b"connection: close" in answer


def test_a_trailer_is_not_treated_as_a_header(edge: Edge) -> None:
    trailers = b"X-Secret: 1\r\nX-Forwarded-For: 10.0.0.1\r\nContent-Type: text/html\r\n"
    head = b"POST /headers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Secret\r\n%b\r\n"
    for offer in (b"", OFFERS["h2c"]):
        chunked = head % offer + b"2\r\n{}\r\n0\r\n" + trailers + b"\r\n"
        following = b"POST /headers HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
        for parts in (
            [chunked + following],
            [chunked[:-2], chunked[-2:], following],
            [chunked[:-20], chunked[-20:] + following],
        ):
            first, second = answers(send_in_parts(edge, parts))
            assert not {"x-secret", "x-forwarded-for", "content-type"} & {*first}, first
            assert [*second] == ["connection", "content-length"]


def test_an_address_in_a_trailer_is_ignored(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    serving = Serving(
        "relay",
        tmp_path_factory.mktemp("trailers"),
        REDIS_URL=redis_url,
        ALLOWED_IPS="10.0.0.0/8",
        TRUSTED_PROXY_HEADER="X-Forwarded-For",
    )
    request = (
        "POST /v1/commands/list_sessions?wait=0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"X-API-Key: {API_KEY}\r\n%sTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n%s\r\n"
    )
    try:
        address = "X-Forwarded-For: 10.0.0.1\r\n"
        assert serving.exchange((request % (address, "")).encode()).startswith(b"HTTP/1.1 202")
        answer = serving.exchange((request % ("", address)).encode())
        assert answer.startswith(b"HTTP/1.1 403")
        assert b"address_not_allowed" in answer
        assert b"address_not_allowed" in serving.exchange(
            (request % ("X-Forwarded-For: 9.9.9.9\r\n", address)).encode()
        )
    finally:
        serving.close()
