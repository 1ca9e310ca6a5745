"""Unfinished signed bodies do not keep out senders of complete ones, whatever their addresses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from datetime import UTC, datetime

import psutil
import pytest
from redis import Redis
from standardwebhooks.webhooks import Webhook

from models.errors import TooManyRequests
from relay.http.bodies import UnauthenticatedBytes
from relay.http.client_addresses import network_of
from tests.support.processes.serving import Serving, entries
from tests.support.sockets import begin_signed_body, receive_all

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = '{"command":"store_memory","session_id":"s","data":{"content":"hello"}}'
BEGUN = 140
"""The number of bodies of a megabyte: more than the limit for all unfinished bodies."""
MEGABYTE = 1_000_000


@pytest.fixture(params=["", "X-Forwarded-For"], ids=["direct", "behind a proxy"])
def serving(
    redis: Redis, redis_url: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Serving]:
    """A relay that accepts signed webhooks, with and without a proxy in front."""
    folder = tmp_path_factory.mktemp("unfinished")
    secrets = {"WEBHOOK_SECRETS": f"railway={SECRET}", "TRUSTED_PROXY_HEADER": request.param}
    serving = Serving("relay", folder, REDIS_URL=redis_url, **secrets)
    yield serving
    serving.close()


def send_signed(serving: Serving, name: str, address: str) -> bytes:
    """Send a complete signed webhook. Returns the response."""
    now = datetime.now(UTC)
    head = (
        "POST /v1/webhook HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"webhook-id: {name}\r\nwebhook-timestamp: {int(now.timestamp())}\r\n"
        f"webhook-signature: {Webhook(SECRET).sign(name, now, BODY)}\r\n"
        f"X-Forwarded-For: {address}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", serving.port), timeout=30, source_address=(address, 0)) as connection:
        connection.sendall(f"{head}{BODY}".encode())
        return receive_all(connection)


def test_unfinished_bodies_from_one_address_keep_no_one_out(serving: Serving, redis: Redis) -> None:
    process = psutil.Process(serving.running.pid)
    memory = process.memory_info().rss
    begun = [begin_signed_body(serving.port, MEGABYTE, address="127.0.0.1") for _ in range(BEGUN)]
    try:
        for number, address in enumerate(("127.0.0.2", "127.0.0.1")):
            answer = send_signed(serving, f"msg_{number}", address)
            assert answer.startswith(b"HTTP/1.1 202"), answer
        assert process.memory_info().rss - memory < 100 * MEGABYTE
        first = begun[0].recv(65_536)
        assert first.startswith(b"HTTP/1.1 429")
        assert b"retry-after: 5\r\n" in first
        assert b'"code":"too_many_bodies"' in first
    finally:
        for connection in begun:
            connection.close()
    assert [entry.delivery_id for entry in entries(redis)] == ["msg_0", "msg_1"]


async def _hold(unproven: UnauthenticatedBytes, address: str, size: int, told: list[str]) -> None:
    """Send so much of a body, and then nothing more."""
    try:
        async with unproven.reading(network_of(address)) as count:
            count(size)
            await asyncio.Event().wait()
    except TooManyRequests:
        told.append(address)


def evicted(*bodies: tuple[str, int]) -> list[str]:
    """Return the addresses whose bodies were evicted, with limits of 10 bytes for each address and 25 for all."""

    async def main() -> list[str]:
        unproven = UnauthenticatedBytes(body_limit=5, share_bytes=10, all_bytes=25)
        told: list[str] = []
        tasks = []
        for address, size in bodies:
            tasks.append(asyncio.create_task(_hold(unproven, address, size, told)))
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (unproven._all.size, unproven._shares) == (0, {})
        return told

    return asyncio.run(main())


def test_the_oldest_body_of_an_address_is_evicted_for_its_newer_ones() -> None:
    assert evicted(("10.0.0.2", 5), ("10.0.0.1", 5), ("10.0.0.1", 5), ("10.0.0.1", 1)) == ["10.0.0.1"]
    assert evicted(("10.0.0.1", 5), ("10.0.0.1", 5)) == []


def test_beyond_the_overall_limit_the_oldest_body_is_evicted() -> None:
    assert evicted(*((f"10.0.0.{number}", 5) for number in range(7))) == ["10.0.0.0", "10.0.0.1"]


def test_ipv6_addresses_of_one_network_share_a_limit() -> None:
    assert evicted(("2001:db8::1", 5), ("2001:db8::2", 5), ("2001:db8::3", 5)) == ["2001:db8::1"]
    assert evicted(("2001:db8::1", 5), ("2001:db8:0:1::2", 5), ("2001:db8::3", 5)) == []


def test_addresses_are_grouped_by_network() -> None:
    assert network_of("203.0.113.7") == "203.0.113.7"
    assert network_of("2001:db8:1:2:3:4:5:6") == "2001:db8:1:2::/64"
    assert network_of(None) == "unknown"
