"""Data kept after a command is applied: outcomes for waiting senders, nothing else in Redis, and lists without
results."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import psutil
import pytest

from local.servers.embedded import EmbeddedServer
from models.queue.job_queue import open_queue
from tests.support.processes.stack import Payload, Stack, new_id, new_stack, wait_for


@pytest.fixture(scope="module")
def stack(postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The processes, of which a test may stop the worker."""
    with new_stack(postgres, tmp_path_factory.mktemp("kept")) as stack:
        yield stack


@pytest.fixture(scope="module")
def session_id(stack: Stack) -> str:
    """A session with a memory."""
    session_id = new_id("walk")
    stack.send("create_session", session_id, title="Planning on a walk")
    stack.send("store_memory", session_id, key="db", type="decision", content="We picked Postgres 18 as database")
    return session_id


def decided(stack: Stack, delivery_id: str) -> Payload:
    """Wait until a delivery is applied or rejected. Returns it."""
    path = f"/v1/deliveries/{delivery_id}"
    wait_for(lambda: stack.client.get(path).json()["status"] != "accepted", what="applied or rejected")
    body: Payload = stack.client.get(path).json()
    return body


def test_the_result_of_a_read_is_kept_for_a_request_that_timed_out(stack: Stack, session_id: str) -> None:
    stack.stop("worker")
    try:
        body = {"command": "retrieve_memory", "session_id": session_id, "data": {"key": "db"}}
        pending = stack.client.post("/v1/webhook?wait=0.2", json=body).json()
        assert pending["status"] == "pending"
    finally:
        stack.start("worker")
    wait_for(lambda: "result" in decided(stack, pending["delivery_id"]), what="reported")
    delivery = decided(stack, pending["delivery_id"])
    assert delivery["result"]["data"]["memory"]["content"] == "We picked Postgres 18 as database"
    (key,) = stack.redis.scan_iter(f"sr:outcome:default:{pending['delivery_id']}:*")
    assert 0 < stack.redis.ttl(key) <= 60


def test_the_result_of_a_read_is_not_kept_without_a_waiter_or_once_delivered(stack: Stack, session_id: str) -> None:
    unheard = stack.post("retrieve_memory", session_id, key="db")["delivery_id"]
    heard = stack.send("retrieve_memory", session_id, key="db")["delivery_id"]
    for delivery_id in (unheard, heard):
        assert decided(stack, delivery_id)["status"] == "applied"
        wait_for(lambda: not list(stack.redis.scan_iter(f"sr:outcome:default:{delivery_id}:*")), what="deleted")  # noqa: B023
        delivery = decided(stack, delivery_id)
        assert "result" not in delivery
        assert "Send the read again" in delivery["hint"]
    body = {"command": "retrieve_memory", "session_id": session_id, "data": {"key": "db"}}
    again = stack.client.post("/v1/webhook?wait=30", json=body, headers={"Idempotency-Key": unheard})
    assert again.json()["data"]["memory"]["content"] == "We picked Postgres 18 as database"


def test_an_applied_delivery_leaves_only_its_dedup_key_in_redis(stack: Stack) -> None:
    """An RQ job with its result would use 5 kB for some minutes."""
    session_id = new_id()
    stack.send("create_session", session_id, title="Light")
    for number in range(20):
        stack.send("store_memory", session_id, key="k", content=number)
    queue, redis = open_queue(stack.redis), stack.redis
    wait_for(lambda: not (queue.job_ids or queue.started_job_registry.get_job_ids(cleanup=False)), what="jobs finished")

    def described() -> set[bytes]:
        return {cast(bytes, redis.hget(key, "description"))[:11] for key in redis.scan_iter("rq:job:*")}

    wait_for(lambda: described() <= {b"dead letter"}, what="deleted")
    jobs = {key.rpartition(b":")[2] for key in redis.scan_iter("rq:job:*")}
    assert {key.rpartition(b":")[2] for key in redis.scan_iter("rq:results:*")} <= jobs
    kinds = {b":".join(key.split(b":")[:2]) for key in redis.scan_iter() if redis.type(key) != b"stream"}
    assert kinds.isdisjoint({b"rq:finished", b"rq:execution", b"rq:executions", b"sr:backlog"})


def test_a_list_of_deliveries_shows_no_results(stack: Stack) -> None:
    """500 results once took 214 MB."""
    session_id = new_id()
    stack.send("create_session", session_id, title="Large", context="x" * 100_000)
    for number in range(5):
        stack.send("rename_session", session_id, title=f"Large {number}")
    items = [{"command": "delete_memory", "data": {"key": f"{n:0200}"}} for n in range(500)]
    body = {"command": "batch", "session_id": session_id, "data": {"mode": "partial", "commands": items}}
    stack.client.post("/v1/webhook?wait=30", json=body).raise_for_status()
    refused_id = stack.try_send("store_memory", session_id, key="k", content=1, if_revision=7).json()["delivery_id"]
    answer = stack.client.get(f"/v1/deliveries?session_id={session_id}")
    refused, *others = answer.json()["items"]
    assert len(others) == 7
    assert len(answer.content) < 5_000
    assert {"result", "error"}.isdisjoint(name for item in (refused, *others) for name in item)
    assert (refused["delivery_id"], refused["code"]) == (refused_id, "revision_conflict")
    assert "revision" in refused["reason"]
    assert decided(stack, others[0]["delivery_id"])["result"]["data"]["failed"] == 500


LARGE = "What we said about the roof. " * 30_000
MAX_MEMORY = 32 * 2**20


def test_a_batch_of_large_reads_costs_little(stack: Stack) -> None:
    """Its response once had 178 MB, and the worker grew to 1.4 GB."""
    session_id = new_id()
    stack.send("create_session", session_id, title="Large", context=LARGE)
    stack.send("store_memory", session_id, key="large", content=LARGE)
    item = {"command": "retrieve_memory", "data": {"key": "large", "max_characters": 90_000}}
    body = {"command": "batch", "session_id": session_id, "data": {"commands": [item] * 500, "max_characters": 90_000}}
    answer = stack.client.post("/v1/webhook?wait=40", json=body)
    assert answer.status_code == 200
    assert answer.json()["data"]["processed"] == 500
    assert 80_000 < len(answer.content) < 160_000
    workers = psutil.Process(stack.pid("worker")).children()
    assert max(process.memory_info().rss for process in workers) < 300_000_000


def test_a_key_that_only_reads_cannot_keep_others_from_writing(stack: Stack) -> None:
    """Its outcomes once filled Redis in 98 s."""
    session_id = new_id()
    stack.send("create_session", session_id, title="Large")
    stack.send("store_memory", session_id, key="large", content=LARGE)
    made = stack.client.post("/v1/keys", json={"name": new_id("reader"), "scopes": ["read"]}).json()
    headers = {"X-API-Key": made["key"]}
    read = {"command": "retrieve_memory", "session_id": session_id, "data": {"key": "large", "max_characters": 90_000}}
    wait_for(lambda: stack.client.get("/v1/keys", headers=headers).status_code == 403, what="key accepted")
    before = stack.redis.config_get("maxmemory")["maxmemory"]
    stack.redis.config_set("maxmemory", MAX_MEMORY)
    stop = threading.Event()

    def read_on() -> int:
        done = 0
        with stack.new_client() as client:
            while not stop.is_set():
                answer = client.post("/v1/webhook?wait=0.01", json=read, headers=headers)
                assert answer.status_code in (200, 202, 429), answer.text
                done += 1
        return done

    def held() -> int:
        keys = stack.redis.scan_iter(f"sr:outcome:{made['name']}:*")
        return sum(int(stack.redis.memory_usage(key) or 0) for key in keys)

    share = MAX_MEMORY * 0.7 / 16
    try:
        with ThreadPoolExecutor(8) as pool:
            reading = [pool.submit(read_on) for _ in range(8)]
            wait_for(
                lambda: stack.post("store_memory", session_id, content=1) and held() > share * 0.7, what="limit reached"
            )
            for number in range(30):
                stack.post("store_memory", session_id, key="k", content=number)
            stop.set()
            assert sum(done.result() for done in reading) > 20
        assert share * 0.7 < held() < share * 1.3
        assert int(stack.redis.info("memory")["used_memory"]) < MAX_MEMORY * 0.7
    finally:
        stop.set()
        stack.redis.config_set("maxmemory", str(before))
    stack.wait_until_drained()
