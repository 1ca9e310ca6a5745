"""Rate limits of a sender, counted by several processes together."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import pytest
from redis import Redis

from models.errors import TooManyRequests
from models.settings import Settings
from relay.limits import rate_limiter
from relay.limits.request_rates import RequestRates
from relay.redis_client import open_redis
from relay.rejections import KEPT_PER_SECOND, LIST_KEY, Rejection
from tests.support.clients.signing import WEBHOOK_SECRET, post_signed
from tests.support.processes.connections import statuses, wait_until_complete
from tests.support.processes.serving import Serving, Stopwatch, entries, memory
from tests.support.processes.stack import wait_for
from tests.support.project import API_KEY
from tests.support.servers import running_valkey

SESSION = "solar-roof"
BURST = 300


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A Redis of the module's own that does not wait for the disk: if it responds late, no limit applies."""
    with running_valkey(settings={"appendfsync": "no"}) as server:
        yield server.url


@pytest.fixture(autouse=True)
def _empty(redis: Redis) -> None:
    """Clear all counts before each test."""


@pytest.fixture
def strict(redis_url: str, tmp_path: Path) -> Iterator[Serving]:
    """A relay that accepts five requests a day from each sender."""
    more = {"RATE_LIMIT": "5/day", "WEBHOOK_SECRETS": f"walker={WEBHOOK_SECRET}"}
    with closing(Serving("relay", tmp_path, REDIS_URL=redis_url, **more)) as serving:
        yield serving


def limits(answer: httpx.Response) -> list[int]:
    return [int(answer.headers[f"ratelimit-{name}"]) for name in ("limit", "remaining")]


# Over HTTP


def test_a_sender_over_its_limit_gets_a_retry_time_and_others_are_not_affected(strict: Serving, redis: Redis) -> None:
    for left in (4, 3, 2, 1, 0):
        answer = strict.post(memory(SESSION))
        assert answer.status_code == 202
        assert limits(answer) == [5, left]
        assert 0 < int(answer.headers["ratelimit-reset"]) <= 86_400
    for _ in range(3):
        refused = strict.post(memory(SESSION))
        assert refused.status_code == 429
        assert limits(refused) == [5, 0]
        assert 0 < int(refused.headers["retry-after"]) <= 86_400
        error = refused.json()["error"]
        assert (error["code"], error["retryable"]) == ("rate_limited", True)
        assert "5 requests in 86,400 seconds" in error["message"]
    assert len(entries(redis)) == 5
    other = post_signed(strict, memory(SESSION))
    assert other.status_code == 202
    assert limits(other) == [5, 4]


def test_several_processes_count_together_and_log_few_refusals(redis_url: str, redis: Redis, tmp_path: Path) -> None:
    more = {"RATE_LIMIT": "40/day", "RELAY_PROCESSES": "2"}
    with closing(Serving("relay", tmp_path, REDIS_URL=redis_url, **more)) as pair:
        wait_until_complete(pair.running.pid, pair.port)
        assert statuses(pair.port, memory(SESSION), BURST) == {202: 40, 429: BURST - 40}
        assert len(entries(redis)) == 40
        refused = [line for line in pair.log().splitlines() if " cause=rate_limited " in line]
        assert 1 <= len(refused) <= 2, "one line of each process, which counts the others"
        counted = str(BURST - 40).encode()
        wait_for(lambda: redis.hget("sr:refusals:counts", "rate") == counted, what="all counted")
        kept = [
            msgspec.json.decode(item, type=Rejection) for item in cast("list[bytes]", redis.lrange(LIST_KEY, 0, -1))
        ]
        assert 0 < max(Counter(int(item.at.timestamp()) for item in kept).values()) <= KEPT_PER_SECOND


def test_requests_with_unknown_keys_are_not_counted_and_see_no_limit(strict: Serving) -> None:
    for _ in range(7):
        answer = strict.post(memory(SESSION), **{"X-API-Key": "no-key"})
        assert answer.status_code == 401
        assert "ratelimit-limit" not in answer.headers
    assert limits(strict.post(memory(SESSION))) == [5, 4]
    assert "ratelimit-limit" not in strict.client.get("/healthz").headers


def test_requests_refused_for_other_reasons_count_and_show_the_limit(strict: Serving) -> None:
    assert limits(strict.post(b"no json")) == [5, 4]
    assert limits(strict.client.post("/v1/webhook", content=b"x" * 2_000_000)) == [5, 3]


def test_a_connection_stays_usable_after_a_refusal_without_reading_the_body(strict: Serving, redis: Redis) -> None:
    for _ in range(5):
        strict.post(memory(SESSION))
    body = b" " * 900_000
    head = f"POST /v1/webhook HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", strict.port), timeout=20) as connection:
        for _ in range(3):
            connection.sendall(head.encode() + body)
            with connection.makefile("rb") as answers:
                assert b" 429 " in answers.readline()
                length = next(int(line.split(b":")[1]) for line in answers if line.startswith(b"content-length"))
                while answers.readline() != b"\r\n":
                    pass
                assert b"rate_limited" in answers.read(length)
    assert len(entries(redis)) == 5


def test_bytes_are_limited_whether_announced_or_not(redis_url: str, redis: Redis, tmp_path: Path) -> None:
    large = memory(SESSION, text="x" * 400_000)
    with closing(Serving("relay", tmp_path, REDIS_URL=redis_url, BYTE_LIMIT="1100000/day")) as serving:
        assert [serving.post(large).status_code for _ in range(3)] == [202, 202, 429]
        chunked = serving.client.post("/v1/webhook", content=iter([b'{"command":', b" " * 500_000]))
        assert chunked.status_code == 429
        assert "bytes in" in chunked.json()["error"]["message"]
        assert int(chunked.headers["retry-after"]) > 0
    assert len(entries(redis)) == 2


# In a process


@pytest.fixture
def timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long timeouts, since only counting is tested, however slow the machine is."""
    for name in ("ANSWER_SECONDS", "HOLD_SECONDS", "BUSY_SECONDS"):
        monkeypatch.setattr(rate_limiter, name, 30.0)


def run(
    redis_url: str, work: Callable[[RequestRates], Awaitable[None]], *, processes: int = 1, **settings: Any
) -> None:
    """Run work with the limits of several processes, all at once."""

    async def each() -> None:
        async with open_redis(redis_url, connections=4) as redis:
            await work(RequestRates(redis, Settings(**settings)))

    async def all_of_them() -> None:
        await asyncio.gather(*(each() for _ in range(processes)))

    asyncio.run(all_of_them())


async def count_granted(rates: RequestRates, source: str, tries: int) -> int:
    """Return how many of so many simultaneous requests are let through."""

    async def one() -> bool:
        try:
            await rates.hit(source, {})
        except TooManyRequests:
            return False
        return True

    return sum(await asyncio.gather(*(one() for _ in range(tries))))


@pytest.mark.usefixtures("timeouts")
def test_the_whole_limit_can_be_used_and_no_more(redis_url: str) -> None:
    async def work(rates: RequestRates) -> None:
        assert await count_granted(rates, "a", 700) == 600
        assert await count_granted(rates, "a", 5) == 0
        assert await count_granted(rates, "b", 5) == 5

    run(redis_url, work, rate_limit="600/day")


@pytest.mark.usefixtures("timeouts")
def test_several_processes_share_one_limit(redis_url: str) -> None:
    granted: list[int] = []

    async def work(rates: RequestRates) -> None:
        granted.append(await count_granted(rates, "a", 400))

    run(redis_url, work, processes=4, rate_limit="1000/day")
    # When one process is refused, another may hold a reserved block of at most a hundredth of the limit.
    assert 960 <= sum(granted) <= 1_000


@pytest.mark.usefixtures("timeouts")
def test_quota_in_hand_is_not_spent_twice_while_more_is_reserved(redis_url: str) -> None:
    async def work(rates: RequestRates) -> None:
        accepted = 0

        async def send(size: int) -> None:
            nonlocal accepted
            while True:
                await rates.hit_bytes("a", size)
                accepted += size
                await asyncio.sleep(0)

        refused = await asyncio.gather(*(send(size) for size in (100, 1_000, 15_000)), return_exceptions=True)
        assert {type(each) for each in refused} == {TooManyRequests}
        assert 1_000_000 < accepted <= 1_100_000

    run(redis_url, work, byte_limit="1100000/day")


@pytest.mark.usefixtures("timeouts")
def test_busy_senders_and_those_over_their_limit_cost_few_redis_commands(redis_url: str, redis: Redis) -> None:
    def commands() -> int:
        return int(redis.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))

    async def work(rates: RequestRates) -> None:
        before = commands()
        assert [await count_granted(rates, "a", 100) for _ in range(300)] == [100] * 300
        assert commands() - before < 600
        assert await count_granted(rates, "a", 100) == 0
        before, watch, refused = commands(), Stopwatch(), 0
        while watch.seconds < 0.4:
            refused += 100 - await count_granted(rates, "a", 100)
        assert refused > 1_000
        assert commands() - before < 20

    run(redis_url, work, rate_limit="30000/day")


@pytest.mark.usefixtures("timeouts")
def test_a_slow_sender_loses_no_quota_to_reserved_blocks(redis_url: str) -> None:
    left: list[int] = []

    async def work(rates: RequestRates) -> None:
        state: dict[str, Any] = {}
        await rates.hit("a", state)
        left.append(state["allowance"].remaining)

    for _ in range(3):
        run(redis_url, work, rate_limit="1000/day")
    assert left == [999, 998, 997]


def test_without_redis_there_is_no_limit_and_no_delay() -> None:
    watch = Stopwatch()

    async def work(rates: RequestRates) -> None:
        assert await count_granted(rates, "a", 100) == 100
        state: dict[str, Any] = {}
        await rates.hit("a", state)
        assert state["allowance"] is None

    run("redis://127.0.0.1:1/0", work, rate_limit="5/day")
    assert watch.seconds < 2
