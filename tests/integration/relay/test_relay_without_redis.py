"""The relay while its Redis is down or does not respond."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from local.servers.embedded import EmbeddedServer, start_valkey
from tests.support.ports import free_port
from tests.support.processes.serving import (
    Serving,
    Stopwatch,
    entries,
    memory,
    set_outcome,
    wait_for_entry,
    wait_for_status,
)
from tests.support.processes.stack import wait_for
from tests.support.project import IS_LONG

ROUNDS, BEFORE, AFTER = (5, 64, 320) if IS_LONG else (2, 64, 160)
"""Restarts of Redis, and webhooks before and after each: connections that are dead since then lie in a pool."""
AWAY = "The inbox does not answer at the moment; nothing was stored."


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    server = start_valkey(tmp_path / "valkey")
    yield server
    server.stop()


def test_it_starts_while_redis_is_down_and_accepts_webhooks_once_it_is_up(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    server.pause()
    with closing(Serving("relay", tmp_path, REDIS_URL=server.url)) as serving:
        assert serving.client.get("/healthz").json() == {"status": "ok"}
        ready = serving.client.get("/readyz")
        assert (ready.status_code, ready.json()) == (
            503,
            {"webhooks": {"taken": False, "reason": AWAY}, "redis": "unavailable"},
        )
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


def test_it_goes_on_after_redis_was_killed_and_loses_nothing(server: EmbeddedServer, tmp_path: Path) -> None:
    with closing(Serving("relay", tmp_path, REDIS_URL=server.url)) as serving:
        accepted = [serving.post(memory(text=number)).json()["delivery_id"] for number in range(20)]
        server.kill()
        wait_for_status(503, lambda: serving.post(memory()))
        server.restart()
        with ThreadPoolExecutor(1) as pool, closing(Redis.from_url(server.url)) as redis:
            assert [entry.delivery_id for entry in entries(redis)] == accepted
            wait_for_status(202, lambda: serving.post(memory()))
            answer = pool.submit(serving.post, memory(id="waits"), "/v1/webhook?wait=20")
            set_outcome(redis, wait_for_entry(redis, "waits"), body=b'{"answered": true}')
            assert answer.result().json() == {"answered": True}


def test_a_push_with_unknown_result_names_the_id_for_repeating_it(server: EmbeddedServer, tmp_path: Path) -> None:
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


def test_a_redis_without_persistence_is_reported_and_refused_if_configured(
    server: EmbeddedServer, tmp_path: Path
) -> None:
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


def test_webhooks_are_accepted_as_soon_as_redis_is_back_after_each_restart(tmp_path: Path) -> None:
    port = free_port()
    server = start_valkey(tmp_path / "valkey", settings={"port": str(port)})
    serving = Serving("relay", tmp_path, REDIS_URL=f"redis://127.0.0.1:{port}/0")
    statuses: list[int] = []
    with closing(serving), ThreadPoolExecutor(16) as pool:
        try:
            for _ in range(ROUNDS):
                list(pool.map(lambda number: serving.post(memory(text=number)), range(BEFORE)))
                server.restart()
                wait_for(lambda: serving.client.get("/readyz").status_code == 200, what="ready")
                answers = list(pool.map(lambda number: serving.post(memory(text=number)), range(AFTER)))
                statuses += [answer.status_code for answer in answers]
        finally:
            server.stop()
    assert statuses == [202] * ROUNDS * AFTER


def limit_user(redis: Redis) -> dict[str, str]:
    redis.acl_setuser(
        "limited", enabled=True, passwords=["+p"], keys=["*"], channels=["*"], commands=["+@all", "-info"]
    )
    return {"REDIS_URL": f"{url_of(redis).replace('unix://', 'unix://limited:p@')}"}


def use_wrong_password(redis: Redis) -> dict[str, str]:
    redis.acl_setuser("limited", enabled=True, passwords=["+p"], keys=["*"], channels=["*"], commands=["+@all"])
    return {"REDIS_URL": f"{url_of(redis).replace('unix://', 'unix://limited:other@')}"}


def make_replica(redis: Redis) -> dict[str, str]:
    redis.replicaof("127.0.0.1", "1")
    return {}


def forget(redis: Redis) -> dict[str, str]:
    redis.config_set("appendfsync", "everysec")
    return {"REQUIRE_DURABLE_REDIS": "true"}


def fill(redis: Redis) -> dict[str, str]:
    redis.config_set("maxmemory", "1mb")
    return {}


def url_of(redis: Redis) -> str:
    return f"unix://{redis.connection_pool.connection_kwargs['path']}"


@pytest.mark.parametrize(
    ("spoil", "reason", "advice"),
    [
        (limit_user, "Redis denies this relay commands that it needs", "and INFO"),
        (use_wrong_password, "Redis rejects this relay's password", "Correct the user and the password"),
        (make_replica, "Redis is a read-only replica", "Name the primary in REDIS_URL"),
        (forget, "The inbox is not durable", "Redis has appendfsync everysec"),
        (fill, "The inbox has little memory left", "Refusing webhooks"),
    ],
)
def test_readiness_means_accepting_webhooks_and_the_cause_is_logged_once(
    server: EmbeddedServer, tmp_path: Path, spoil: Any, reason: str, advice: str
) -> None:
    with closing(Redis.from_url(server.url)) as redis:
        environment = {"REDIS_URL": server.url} | spoil(redis)
        with closing(Serving("relay", tmp_path, **environment)) as serving:
            refused = wait_for_status(503, lambda: serving.post(memory()))
            ready = serving.client.get("/readyz")
            told = {"taken": False, "reason": f"{reason}; nothing was stored."}
            assert (ready.status_code, ready.json()["webhooks"]) == (503, told)
            assert refused.json()["error"]["message"] == told["reason"]
            wait_for(lambda: advice in serving.log(), what="logged")
            for _ in range(5):
                serving.post(memory())
            assert serving.log().count(reason) == 1
            assert serving.client.get("/healthz").json() == {"status": "ok"}
