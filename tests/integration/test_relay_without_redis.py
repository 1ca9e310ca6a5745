"""The relay while its Redis is down, or does not answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis

from local.servers import Server, start_valkey
from tests.integration.serving import Serving, Stopwatch, decide, entries, memory, wait_for_entry, wait_for_status


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = start_valkey(tmp_path / "valkey")
    yield server
    server.stop()


def test_it_starts_and_says_so_while_redis_is_down_and_takes_webhooks_once_it_is_up(
    server: Server, tmp_path: Path
) -> None:
    server.pause()
    with closing(Serving("relay", tmp_path, REDIS_URL=server.url)) as serving:
        assert serving.client.get("/healthz").json() == {"status": "ok"}
        ready = serving.client.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"redis": "unavailable"})
        watch = Stopwatch()
        refused = serving.post(memory())
        assert refused.status_code == 503
        assert refused.json()["error"]["retryable"] is True
        assert "retry-after" in refused.headers
        assert watch.seconds < 3
        server.restart()
        wait_for_status(202, lambda: serving.post(memory(id="d1")))
        with closing(Redis.from_url(server.url)) as redis:
            assert [entry.delivery_id for entry in entries(redis)] == ["d1"]


def test_it_goes_on_after_redis_was_killed_and_forgets_nothing(server: Server, tmp_path: Path) -> None:
    with closing(Serving("relay", tmp_path, REDIS_URL=server.url)) as serving:
        accepted = [serving.post(memory(text=number)).json()["delivery_id"] for number in range(20)]
        server.kill()
        wait_for_status(503, lambda: serving.post(memory()))
        server.restart()
        with ThreadPoolExecutor(1) as pool, closing(Redis.from_url(server.url)) as redis:
            assert [entry.delivery_id for entry in entries(redis)] == accepted
            wait_for_status(202, lambda: serving.post(memory()))
            answer = pool.submit(serving.post, memory(id="waits"), "/v1/webhook?wait=20")
            decide(redis, wait_for_entry(redis, "waits"), body=b'{"answered": true}')
            assert answer.result().json() == {"answered": True}


def test_a_push_whose_result_is_unknown_names_the_id_to_repeat_it_under(server: Server, tmp_path: Path) -> None:
    with closing(Serving("relay", tmp_path, REDIS_URL=server.url)) as serving:
        assert serving.post(memory("warm")).status_code == 202
        os.kill(server.pid, signal.SIGSTOP)
        try:
            answer = serving.post(memory("s"))
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "unavailable"
        delivery_id = answer.headers["idempotency-key"]
        assert delivery_id in answer.json()["error"]["hint"]
        again = wait_for_status(202, lambda: serving.post(memory("s"), **{"Idempotency-Key": delivery_id}))
        assert again.json()["delivery_id"] == delivery_id
        with closing(Redis.from_url(server.url)) as redis:
            assert [entry.delivery_id for entry in entries(redis)].count(delivery_id) == 1
            assert len(entries(redis)) == 2


def test_a_redis_that_forgets_is_named_and_refused_if_that_is_wished(server: Server, tmp_path: Path) -> None:
    with closing(Redis.from_url(server.url)) as redis:
        redis.config_set("appendfsync", "everysec")
        strict = {"REDIS_URL": server.url, "REQUIRE_DURABLE_REDIS": "true"}
        with closing(Serving("relay", tmp_path, **strict)) as serving:
            refused = serving.post(memory())
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
            assert "Redis has appendfsync everysec; it needs appendonly yes, appendfsync always" in serving.log()
            redis.config_set("appendfsync", "always")
            wait_for_status(202, lambda: serving.post(memory()))
        redis.config_set("appendfsync", "everysec")
        with closing(Serving("relay", tmp_path, REDIS_URL=server.url)) as serving:
            assert serving.post(memory()).status_code == 202
            assert "Redis has appendfsync everysec" in serving.log()
