"""Requests that were on their way when a relay stops are answered, so that a proxy sees no connection break."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from relay.http.connection_limits import Timeouts
from tests.support.processes.edge import Edge
from tests.support.processes.stack import wait_for
from tests.support.sockets import receive_all

REQUEST = b"POST /body HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\nx"


@pytest.fixture
def edge() -> Iterator[Edge]:
    with Edge(Timeouts()) as edge:
        yield edge


def assert_answered_and_closed(response: bytes) -> None:
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in head.lower()
    assert body == b'{"size":1}'


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_connections_that_the_kernel_has_accepted_are_answered(edge: Edge, turns: int) -> None:
    stop, connected = threading.Event(), threading.Event()
    edge.stop_when(stop, connected, turns=turns)
    # The server's loop stands still now, and stops listening as soon as it goes on, or while it takes them itself.
    stop.wait(20)
    with ExitStack() as held:
        connections = [held.enter_context(edge.connect(REQUEST)) for _ in range(5)]
        connected.set()
        for connection in connections:
            assert_answered_and_closed(receive_all(connection))


def test_a_process_that_has_no_file_left_answers_what_it_has_begun(edge: Edge) -> None:
    stop, may_stop = threading.Event(), threading.Event()
    with edge.connect(b"GET /wait HTTP/1.1\r\nHost: test\r\n\r\n") as connection:
        wait_for(lambda: edge.waiting == 1, what="waiting")
        edge.stop_when(stop, may_stop)
        stop.wait(20)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            may_stop.set()
            edge.release()
            assert receive_all(connection).endswith(b'{"waited":true}')
            edge.close()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_connection_without_a_request_so_far_is_answered_once_more(edge: Edge) -> None:
    with edge.connect() as first, edge.connect(REQUEST) as used:
        assert used.recv(10_000).endswith(b'{"size":1}')
        wait_for(lambda: len(edge.clients.connections) == 2, what="connected")
        stopping = threading.Thread(target=edge.close)
        stopping.start()
        wait_for(edge.is_refusing, what="stopped listening")
        for connection in (first, used):
            connection.sendall(REQUEST)
            assert_answered_and_closed(receive_all(connection))
        stopping.join()


def test_idle_connections_delay_the_stop_by_less_than_a_second(edge: Edge) -> None:
    with edge.connect() as idle:
        wait_for(lambda: len(edge.clients.connections) == 1, what="connected")
        began_at = time.monotonic()
        edge.close()
        assert time.monotonic() - began_at < 2
        assert idle.recv(1) == b""
