"""Slow clients are disconnected in the end, told why, and do not delay others."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from redis import Redis

from relay.http.connection_limits import LONGEST_STEP_SECONDS, ConnectionRegistry, Timeouts
from tests.support.processes.edge import LARGE, Edge
from tests.support.processes.serving import Serving, Stopwatch
from tests.support.processes.stack import wait_for
from tests.support.project import API_KEY
from tests.support.sockets import receive_all

TIMEOUTS = Timeouts(
    head_seconds=0.5, body_seconds=0.5, answer_seconds=0.8, bytes_per_second=100_000, check_seconds=0.05
)
SLOWEST_SECONDS = 5.0
"""The time within which a client with a timeout of half a second is cut off, on a busy machine."""
WHOLE = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = b"GET /nothing HTTP/1.1\r\nHost: x\r\nX-Padding: "
POST = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture
def edge() -> Iterator[Edge]:
    """A server with short timeouts."""
    edge = Edge(TIMEOUTS)
    yield edge
    edge.close()


def drip(connection: socket.socket, data: Callable[[], bytes], *, pause_seconds: float) -> bytes:
    """Send a piece now and then. Returns the bytes received until the connection is closed."""
    connection.settimeout(pause_seconds)
    received = b""
    with connection:
        while True:
            try:
                connection.sendall(data())
                part = connection.recv(65_536)
            except TimeoutError:
                continue
            except OSError:
                return received
            if not part:
                return received
            received += part


def error_of(answer: bytes) -> dict[str, object]:
    """Return the error of the only response."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.count(b"HTTP/1.1") == 1
    assert b"connection: close" in head
    error: dict[str, object] = json.loads(body)["error"]
    return {"status": int(head.split(b" ")[1]), **error}


TOO_SLOW_HEAD = {
    "status": 408,
    "code": "too_slow",
    "message": "The head of the request did not arrive in time.",
    "retryable": True,
}
TOO_SLOW_BODY = {**TOO_SLOW_HEAD, "message": "The body of the request did not arrive in time."}


def test_an_incomplete_head_gets_an_error_and_is_cut_off(edge: Edge) -> None:
    watch = Stopwatch()
    assert error_of(receive_all(edge.connect(HALF))) == TOO_SLOW_HEAD
    assert 0.4 < watch.seconds < SLOWEST_SECONDS
    ((scope, error),) = edge.noted
    assert (scope["path"], error.code) == ("", "too_slow")


def test_a_dripping_head_is_cut_off_in_the_same_time(edge: Edge) -> None:
    watch = Stopwatch()
    assert error_of(drip(edge.connect(HALF), lambda: b"x", pause_seconds=0.05)) == TOO_SLOW_HEAD
    assert watch.seconds < SLOWEST_SECONDS


def test_a_client_that_sends_nothing_is_disconnected_without_a_response(edge: Edge) -> None:
    assert receive_all(edge.connect()) == b""
    assert edge.noted == []


def test_an_incomplete_head_after_a_complete_request_is_cut_off(edge: Edge) -> None:
    first, _, second = receive_all(edge.connect(WHOLE + HALF)).partition(b"HTTP/1.1 408")
    assert first.startswith(b"HTTP/1.1 404")
    assert b"too_slow" in second


def test_an_idle_connection_stays_open_for_the_next_request(edge: Edge) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{edge.port}") as client:
        assert client.post("/body", content=b"{}").json() == {"size": 2}
        (connection,) = edge.clients.connections
        passed = edge.clients.now + 3 * TIMEOUTS.head_seconds
        wait_for(lambda: edge.clients.now > passed, what="enough time passed")
        assert client.post("/body", content=b"{}").json() == {"size": 2}
        assert edge.clients.connections == {connection}


@pytest.mark.parametrize(
    "beginning", [WHOLE + b"\r\n", b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"]
)
def test_blank_lines_and_unread_bodies_do_not_keep_a_connection_open(beginning: bytes) -> None:
    edge = Edge(TIMEOUTS, keep_alive_seconds=1)
    try:
        connection = edge.connect(beginning)
        assert connection.recv(12).startswith(b"HTTP/1.1 40")
        connection.sendall(b"\r\n" if beginning.startswith(b"GET") else b"12345")
        watch = Stopwatch()
        receive_all(connection)
        assert 0.5 < watch.seconds < SLOWEST_SECONDS
    finally:
        edge.close()


@pytest.mark.parametrize("sent", [0, 1000])
def test_a_stalled_body_gets_an_error_and_is_cut_off(edge: Edge, sent: int) -> None:
    assert error_of(receive_all(edge.connect(POST % 10_000 + b"x" * sent))) == TOO_SLOW_BODY
    ((scope, error),) = edge.noted
    assert (scope["method"], scope["path"], error.code) == ("POST", "/body", "too_slow")


def test_a_dripping_body_is_cut_off(edge: Edge) -> None:
    assert error_of(drip(edge.connect(POST % 10_000), lambda: b"x", pause_seconds=0.05)) == TOO_SLOW_BODY


def test_a_body_at_the_minimum_speed_may_exceed_the_time(edge: Edge) -> None:
    watch = Stopwatch()
    size = 400_000
    connection = edge.connect(POST % size)
    for _ in range(size // 10_000):
        connection.sendall(b" " * 10_000)
        time.sleep(0.04)  # This is what is tested: 250 kB a second, over more than the time for a body.
    assert watch.seconds > 2 * TIMEOUTS.body_seconds
    assert b'{"size":%d}' % size in connection.recv(65_536)
    connection.close()


def test_a_refused_dripping_body_is_cut_off_after_the_response(edge: Edge) -> None:
    connection = edge.connect(b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n")
    received = drip(connection, lambda: b"x", pause_seconds=0.05)
    assert received.startswith(b"HTTP/1.1 401")
    assert received.count(b"HTTP/1.1") == 1


def test_a_dripping_body_that_is_too_large_is_cut_off_after_the_response(edge: Edge) -> None:
    received = drip(edge.connect(POST % 10_000_000), lambda: b"x", pause_seconds=0.05)
    assert received.startswith(b"HTTP/1.1 413")
    assert received.count(b"HTTP/1.1") == 1


def test_a_client_may_wait_for_its_response_with_pipelined_requests_behind(edge: Edge) -> None:
    head = b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"
    connection = edge.connect(head + POST % 4 + b"1234" + POST % 4 + b"12")
    wait_for(lambda: edge.waiting == 1, what="waiting")
    passed = edge.clients.now + 3 * TIMEOUTS.head_seconds
    wait_for(lambda: edge.clients.now > passed, what="enough time passed")
    edge.release()
    received = connection.recv(65_536)
    connection.sendall(b"34")
    while received.count(b"HTTP/1.1 200") < 3:
        part = connection.recv(65_536)
        assert part, received
        received += part
    assert received.count(b'{"size":4}') == 2
    connection.close()


@pytest.mark.parametrize("path", [b"/large", b"/stream"])
def test_a_client_that_does_not_read_its_response_is_disconnected(edge: Edge, path: bytes) -> None:
    connection = edge.connect(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path, receive_buffer=4096)
    wait_for(lambda: len(edge.clients.connections) == 1, what="connection open")
    wait_for(lambda: not edge.clients.connections, what="connection closed")
    wait_for(lambda: edge.streaming == 0, what="stream ended in the app")
    assert 0 < len(receive_all(connection)) < len(LARGE)


def test_a_client_that_does_not_read_its_last_response_is_disconnected(edge: Edge) -> None:
    connection = edge.connect(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", receive_buffer=4096)
    wait_for(lambda: len(edge.clients.connections) == 1, what="connection open")
    wait_for(lambda: not edge.clients.connections, what="connection closed")
    connection.close()


def test_a_client_that_reads_slowly_but_steadily_gets_everything(edge: Edge) -> None:
    connection = edge.connect(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    received, watch = 0, Stopwatch()
    while received < len(LARGE):
        part = connection.recv(1_000_000, socket.MSG_WAITALL)
        assert part, received
        received += len(part)
        time.sleep(0.04)  # This is what is tested: longer than the time for an answer.
    assert watch.seconds > 2 * TIMEOUTS.answer_seconds
    connection.close()


def test_beyond_the_limit_the_longest_idle_connection_is_closed() -> None:
    edge = Edge(Timeouts(head_seconds=30), limit=3)
    try:
        with ExitStack() as stack:
            url = f"http://127.0.0.1:{edge.port}"
            keeper = stack.enter_context(httpx.Client(base_url=url))
            keeper.post("/body", content=b"{}")
            silent = [edge.connect(HALF) for _ in range(3)]
            wait_for(lambda: len(edge.clients.connections) == 3, what="connections open")
            with httpx.Client(base_url=url) as another:
                assert another.post("/body", content=b"{}").json() == {"size": 2}
            assert receive_all(silent[0]) == b""
            for connection in silent[1:]:
                connection.close()
    finally:
        edge.close()


def test_beyond_the_limit_a_new_connection_is_refused_if_all_others_are_active() -> None:
    edge = Edge(TIMEOUTS, limit=2)
    try:
        busy = [edge.connect(b"GET /wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") for _ in range(2)]
        wait_for(lambda: edge.waiting == 2, what="active requests")
        answer = receive_all(edge.connect())
        assert b"retry-after: " in answer
        assert (error_of(answer)["status"], error_of(answer)["code"]) == (503, "unavailable")
        edge.release()
        assert all(b'{"waited":true}' in receive_all(connection) for connection in busy)
    finally:
        edge.close()


def test_connections_survive_a_suspension_of_the_process() -> None:
    clients = ConnectionRegistry(limit=1, timeouts=Timeouts(), record_rejection=lambda *_: None)
    clients.close_overdue(3600.0)
    assert clients.now == LONGEST_STEP_SECONDS < Timeouts().head_seconds


def test_500_connections_with_incomplete_heads_delay_no_others_and_are_closed(relay: Serving, redis: Redis) -> None:
    """With the real timeout of ten seconds."""

    def p95() -> float:
        seconds = []
        for _ in range(100):
            watch = Stopwatch()
            assert relay.client.get("/healthz").json() == {"status": "ok"}
            seconds.append(watch.seconds)
        return sorted(seconds)[95]

    before = p95()
    connections = []
    for _ in range(500):
        connections.append(socket.create_connection(("127.0.0.1", relay.port), timeout=30))
        connections[-1].sendall(HALF)
    ended = threading.Event()

    def keep_dripping() -> None:
        while not ended.wait(0.5):
            for connection in connections:
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    dripping = threading.Thread(target=keep_dripping)
    dripping.start()
    try:
        during = p95()
        answers = [connection.recv(65_536) for connection in connections]
    finally:
        ended.set()
        dripping.join()
        for connection in connections:
            connection.close()
    assert all(error_of(answer)["code"] == "too_slow" for answer in answers)
    assert during < max(2 * before, 0.05), (before, during)
    assert relay.client.get("/v1/refusals").json()["counts"]["too_slow"] >= 500


def test_half_a_body_does_not_hold_up_a_stop_and_its_sender_is_told_to_retry(redis_url: str, tmp_path: Path) -> None:
    serving = Serving("relay", tmp_path, REDIS_URL=redis_url)
    connection = socket.create_connection(("127.0.0.1", serving.port), timeout=40)
    head = f"POST /v1/webhook HTTP/1.1\r\nX-API-Key: {API_KEY}\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"
    connection.sendall(head.encode())
    assert connection.recv(1_000).startswith(b"HTTP/1.1 100")  # The app waits for the body.
    connection.sendall(b"{")
    watch = Stopwatch()
    serving.close()
    took_seconds = watch.seconds
    head, _, body = receive_all(connection).decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 503"), head
    assert "retry-after: " in head
    assert json.loads(body)["error"]["retryable"] is True
    assert "Traceback" not in serving.log()
    assert took_seconds < 12


def test_a_client_that_reads_nothing_does_not_hold_up_a_stop(redis_url: str, tmp_path: Path) -> None:
    serving = Serving("relay", tmp_path, REDIS_URL=redis_url, LOG_LEVEL="WARNING")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.connect(("127.0.0.1", serving.port))
    connection.settimeout(1)
    with pytest.raises(TimeoutError):
        connection.sendall(b"GET /healthz HTTP/1.1\r\n\r\n" * 1_000_000)
    watch = Stopwatch()
    serving.close()
    took_seconds = watch.seconds
    connection.close()
    assert serving.log() == ""
    assert took_seconds < 12
