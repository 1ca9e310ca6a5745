"""Requests that a client sends together, without waiting for responses: few are held at a time, and an error is the
response to the request that caused it."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import psutil
import pytest
from redis import Redis

from relay.http.connection_limits import Timeouts
from tests.support.processes.edge import Edge
from tests.support.processes.serving import Serving, memory, wait_for_entry
from tests.support.processes.stack import wait_for
from tests.support.project import API_KEY
from tests.support.sockets import receive_all, send_parts

WAIT = b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
MALFORMED = {
    "a head": b"no request\r\n\r\n",
    "a header": b"POST /body HTTP/1.1\r\nno header\r\n\r\n",
    "a chunk": b"POST /body HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nno chunk\r\n",
    "a head without end": b"POST /body HTTP/1.1\r\nX: " + b"x" * 200_000,
}
SMALL = b"GET /healthz HTTP/1.1\r\n\r\n"


@pytest.fixture
def edge() -> Iterator[Edge]:
    """A server whose /wait responds once it is released."""
    with closing(Edge(Timeouts())) as edge:
        yield edge


def statuses(answers: bytes) -> list[bytes]:
    """Return the statuses of the responses, in order."""
    return re.findall(rb"HTTP/1\.1 (\d+) ", answers)


@pytest.mark.parametrize("between", [0, 1, 3])
@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_is_answered_after_those_before_it(edge: Edge, name: str, between: int) -> None:
    connection = edge.connect()
    send_parts(connection, [WAIT + between * (POST % (2, b"{}")) + MALFORMED[name]])
    wait_for(lambda: edge.waiting == 1, what="waiting")
    edge.release()
    answers = receive_all(connection)
    assert statuses(answers) == [b"200"] * (1 + between) + [b"400"], answers
    assert answers.count(b'{"size":2}') == between
    assert json.loads(answers.rpartition(b"\r\n\r\n")[2])["error"]["code"] == "bad_request"


def test_an_accepted_webhook_gets_its_receipt_whatever_follows(relay: Serving, redis: Redis) -> None:
    body = json.dumps(memory(id="before-garbage")).encode()
    head = f"POST /v1/webhook HTTP/1.1\r\nX-API-Key: {API_KEY}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    assert statuses(relay.exchange(head + body + b"garbage\r\n\r\n")) == [b"202", b"400"]
    assert wait_for_entry(redis, "before-garbage")


def test_all_of_many_requests_sent_together_are_answered_in_order(edge: Edge) -> None:
    connection = edge.connect()
    sizes = [2 + number * 7 % 3_000 for number in range(600)]
    sent = b"".join(POST % (size, b"[%b]" % (b" " * (size - 2))) for size in sizes)
    last = b"POST /refuse HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    sender = threading.Thread(target=send_parts, args=(connection, [sent + last]))
    sender.start()
    answers = receive_all(connection)
    sender.join()
    assert statuses(answers) == [b"200"] * len(sizes) + [b"401"]
    assert [int(size) for size in re.findall(rb'"size":(\d+)', answers)] == sizes


def test_a_waiting_request_learns_of_the_disconnection_with_others_behind_it(edge: Edge) -> None:
    connection = edge.connect(b"GET /stream HTTP/1.1\r\n\r\n" + POST % (2, b"{}"))
    assert connection.recv(1_000).startswith(b"HTTP/1.1 200")
    connection.close()
    wait_for(lambda: edge.streaming == 0, what="stream ended in the app")
    wait_for(lambda: not edge.clients.connections, what="connection closed")


def test_requests_of_a_client_that_reads_nothing_do_not_fill_the_memory(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    serving = Serving("relay", tmp_path_factory.mktemp("pipelined"), REDIS_URL=redis_url, LOG_LEVEL="WARNING")
    process = psutil.Process(serving.running.pid)
    before = process.memory_info().rss
    connections = []
    for _ in range(10):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect(("127.0.0.1", serving.port))
        connection.setblocking(False)
        connections.append(connection)
    left = dict.fromkeys(connections, 40)
    most = 0

    def all_are_held_up() -> bool:
        nonlocal most
        taken = 0
        for connection in connections:
            try:
                while left[connection]:
                    taken += connection.send(SMALL * 1_000)
                    left[connection] -= 1
            except BlockingIOError:
                pass
        most = max(most, process.memory_info().rss - before)
        return not taken

    wait_for(all_are_held_up, what="nothing more is taken")
    assert serving.client.get("/healthz").status_code == 200
    most = max(most, process.memory_info().rss - before)
    for connection in connections:
        connection.close()
    serving.close()
    assert most < 50_000_000
