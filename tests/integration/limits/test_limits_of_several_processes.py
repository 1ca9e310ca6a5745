"""Limits of one relay hold for all of its processes together."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import msgspec
import pytest
from redis import Redis

from relay.http.bodies import MAX_ADDRESS_BYTES
from relay.ingest.endpoints import WAITING_PLACES
from relay.limits.concurrency import SOURCES_AT_ONCE
from tests.support.clients.signing import WEBHOOK_SECRET
from tests.support.processes.connections import statuses, wait_until_complete
from tests.support.processes.serving import Serving, entries, memory
from tests.support.processes.stack import wait_for
from tests.support.project import API_KEY
from tests.support.sockets import begin_signed_body

SESSION = "solar-roof"
MEGABYTE = 1_000_000
SHARE = 450
"""The commands of one sender that may wait: half of the backlog."""


@pytest.fixture(autouse=True)
def _empty(redis: Redis) -> None:
    """Clear all counts before each test."""


@pytest.fixture(scope="module")
def pair(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A relay of two processes."""
    more = {"WEBHOOK_SECRETS": f"walker={WEBHOOK_SECRET}", "MAX_BACKLOG": str(2 * SHARE), "RELAY_PROCESSES": "2"}
    with closing(Serving("relay", tmp_path_factory.mktemp("pair"), REDIS_URL=redis_url, **more)) as serving:
        wait_until_complete(serving.running.pid, serving.port)
        yield serving


def test_the_backlog_of_a_sender(pair: Serving, redis: Redis) -> None:
    """Within the second between two samples, each process could store as much as the sender may have in all."""
    counted = statuses(pair.port, memory(SESSION), 2 * SHARE)
    assert counted.keys() == {202, 429}
    assert SHARE // 4 <= counted[202] <= SHARE * 5 / 4
    assert len(entries(redis)) == counted[202]


def test_waiting_requests_of_a_sender(pair: Serving, redis: Redis) -> None:
    share = WAITING_PLACES // SOURCES_AT_ONCE
    body = msgspec.json.encode(memory(SESSION))
    head = (
        f"POST /v1/webhook?wait=40 HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    wait_for(lambda: statuses(pair.port, memory(SESSION), 16).keys() == {202}, what="earlier backlog forgotten")
    before = len(entries(redis))
    with ExitStack() as held:
        sent = []
        for _ in range(share + 50):
            connection = held.enter_context(socket.create_connection(("127.0.0.1", pair.port)))
            connection.sendall(head.encode() + body)
            sent.append(connection)
        wait_for(lambda: len(entries(redis)) == before + len(sent), what="all stored")
        waiting = [entry for entry in entries(redis) if entry.waits]
        assert share // 2 <= len(waiting) <= share


def test_unfinished_bodies_of_an_address(pair: Serving) -> None:
    begun = 24
    with ExitStack() as held:
        connections = [held.enter_context(begin_signed_body(pair.port, MEGABYTE)) for _ in range(begun)]
        beyond = begun - MAX_ADDRESS_BYTES // MEGABYTE
        wait_for(lambda: _answered(connections) >= beyond, what=f"{beyond} bodies rejected")


def _answered(connections: list[socket.socket]) -> int:
    answered = 0
    for connection in connections:
        connection.settimeout(0.05)
        with suppress(TimeoutError):
            answered += connection.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 429"
    return answered
