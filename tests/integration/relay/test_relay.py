"""The relay alone: entries, responses, and that it needs only Redis."""

from __future__ import annotations

import socket
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import psutil
import pytest
from redis import Redis

from models.queue.inbox import Outcome, dedup_key, drain_pending_key, inbox_key, outcome_key, shard_of
from models.queue.job_queue import open_queue
from tests.support.processes.connections import listening
from tests.support.processes.fork_server import run_room
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
from tests.support.project import API_KEY
from tests.support.stores import inbox

SESSION = "solar-roof"


@pytest.fixture(autouse=True)
def _empty(redis: Redis) -> None:
    """Empty the inbox before each test."""


# Accepting


@pytest.mark.parametrize("path", ["/v1/webhook", "/webhook"])
def test_a_webhook_is_stored_before_it_is_accepted(relay: Serving, redis: Redis, path: str) -> None:
    answer = relay.post(memory(SESSION, text="x", id="d1"), path)
    assert answer.status_code == 202
    assert answer.json() == {
        "status": "accepted",
        "delivery_id": "d1",
        "session_id": SESSION,
        "command": "store_memory",
        "status_url": "/v1/deliveries/d1",
        "duplicate": False,
    }
    (entry,) = entries(redis)
    assert (entry.source, entry.delivery_id, entry.command, entry.session_id) == (
        "default",
        "d1",
        "store_memory",
        SESSION,
    )
    assert set(entry.scopes) == {"read", "write", "delegate", "agent", "admin"}
    assert entry.session_glob is None
    assert not entry.waits
    assert datetime.now(UTC) - entry.accepted_at < timedelta(seconds=10)
    assert redis.xlen(inbox_key(shard_of(SESSION))) == 1
    assert redis.ttl(dedup_key("default", "d1")) == -1
    assert redis.ttl(drain_pending_key(shard_of(SESSION))) > 0


def test_a_new_entry_enqueues_the_drain_of_its_shard(relay: Serving, redis: Redis) -> None:
    relay.post(memory(SESSION))
    relay.post(memory(SESSION))
    queue = open_queue(redis)
    (job,) = wait_for(lambda: queue.jobs, what="a job")
    assert job.description == f"drain shard {shard_of(SESSION):02d}"
    assert (job.func_name, job.args) == ("worker.jobs.drain", [shard_of(SESSION)])


def test_a_flat_command_equals_its_envelope(relay: Serving, redis: Redis) -> None:
    first = relay.post({"session_id": SESSION, "content": "x", "id": "d1"}, "/v1/commands/store_memory?wait=0")
    second = relay.post(memory(SESSION, text="x", id="d1"))
    assert (first.json()["status"], first.json()["duplicate"]) == ("accepted", False)
    assert (second.json()["status"], second.json()["duplicate"]) == ("accepted", True)


def test_a_webhook_without_id_gets_a_uuid_of_version_7(relay: Serving, redis: Redis) -> None:
    delivery_id = relay.post(memory(SESSION)).json()["delivery_id"]
    assert uuid.UUID(delivery_id).version == 7
    assert [entry.delivery_id for entry in entries(redis)] == [delivery_id]


def test_a_delivery_id_in_the_header_takes_precedence(relay: Serving, redis: Redis) -> None:
    answer = relay.post(memory(SESSION, id="in-body"), **{"Idempotency-Key": "in-header"})
    assert answer.json()["delivery_id"] == "in-header"
    bad = relay.post(memory(SESSION), **{"Idempotency-Key": "a b"})
    assert (bad.status_code, bad.json()["error"]["field"]) == (422, "Idempotency-Key")
    bad = relay.post(memory(SESSION, id="../x"))
    assert (bad.status_code, bad.json()["error"]["field"]) == (422, "id")
    assert len(entries(redis)) == 1


def test_a_duplicate_delivery_gets_the_first_receipt(relay: Serving, redis: Redis) -> None:
    first = relay.post(memory(SESSION, id="d1")).json()
    second = relay.post(memory(SESSION, id="d1")).json()
    assert first | {"duplicate": True} == second
    assert len(entries(redis)) == 1


def test_the_same_id_with_other_content_is_a_conflict(relay: Serving, redis: Redis) -> None:
    relay.post(memory(SESSION, text="one", id="d1"))
    for path in ("/v1/webhook", "/v1/webhook?wait=20"):
        watch = Stopwatch()
        answer = relay.post(memory(SESSION, text="two", id="d1"), path)
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "delivery_conflict"
        assert "/v1/deliveries/d1" in answer.json()["error"]["hint"]
        assert watch.seconds < 5
    assert len(entries(redis)) == 1


def test_racing_duplicates_are_stored_once(relay: Serving, redis: Redis) -> None:
    bodies = [memory(f"s{number}", id=f"d{number}") for number in range(40) for _ in range(3)]
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(relay.post, bodies))
    assert {answer.status_code for answer in answers} == {202}
    first = [answer.json()["delivery_id"] for answer in answers if not answer.json()["duplicate"]]
    assert sorted(first) == sorted(f"d{number}" for number in range(40))
    assert sorted(entry.delivery_id for entry in entries(redis)) == sorted(first)


def test_entries_of_one_sender_keep_their_order_among_others(relay: Serving, redis: Redis) -> None:
    def send(sender: int) -> None:
        with httpx.Client(base_url=relay.url, headers={"X-API-Key": API_KEY}) as client:
            for number in range(30):
                answer = client.post("/v1/webhook", json=memory(f"s{sender}", text=number))
                assert answer.status_code == 202

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(send, range(16)))
    stored: dict[str | None, list[int]] = {}
    for entry in entries(redis):
        content = bytes(entry.data).split(b'"content":')[1].split(b",")[0]
        stored.setdefault(entry.session_id, []).append(int(content))
    assert stored == {f"s{sender}": list(range(30)) for sender in range(16)}


def test_it_goes_on_after_redis_has_lost_its_scripts(relay: Serving, redis: Redis) -> None:
    redis.script_flush()
    assert relay.post(memory(SESSION)).status_code == 202
    assert len(entries(redis)) == 1


# Waiting


@pytest.mark.parametrize("asking", [{"sync": True}, {"feedback_mode": "sync"}])
def test_a_waiting_sender_gets_the_outcome_verbatim(relay: Serving, redis: Redis, asking: dict[str, Any]) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(relay.post, memory(SESSION, id="d1", **asking))
        entry = wait_for_entry(redis, "d1")
        assert entry.waits
        set_outcome(redis, entry, status=409, body=b'{"status": "error",   "kept": 1.50}')
        assert answer.result().status_code == 409
        assert answer.result().content == b'{"status": "error",   "kept": 1.50}'


def test_an_outcome_whose_announcement_was_missed_is_still_found(relay: Serving, redis: Redis) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(relay.post, memory(SESSION, id="d1"), "/v1/webhook?wait=20")
        watch = Stopwatch()
        set_outcome(redis, wait_for_entry(redis, "d1"), body=b'{"found": true}', announced=False)
        assert answer.result().json() == {"found": True}
        assert watch.seconds < 5


def test_all_requests_that_wait_for_one_delivery_get_its_outcome(relay: Serving, redis: Redis) -> None:
    with ThreadPoolExecutor(5) as pool:
        answers = [pool.submit(relay.post, memory(SESSION, id="d1"), "/v1/webhook?wait=20") for _ in range(5)]
        wait_for(lambda: len(entries(redis)) == 5, what="one entry for each waiting request")
        set_outcome(redis, entries(redis)[0], body=b'{"n": 1}')
        assert [answer.result().json() for answer in answers] == [{"n": 1}] * 5


def test_many_waiting_requests_delay_no_others(relay: Serving, redis: Redis) -> None:
    ids = [f"d{number}" for number in range(80)]
    with ThreadPoolExecutor(len(ids)) as pool:
        bodies = [memory(SESSION, text=delivery_id, id=delivery_id) for delivery_id in ids]
        answers = [pool.submit(relay.post, body, "/v1/webhook?wait=30") for body in bodies]
        wait_for(lambda: len(entries(redis)) == len(ids), what="stored")
        watch = Stopwatch()
        for number in range(20):
            assert relay.post(memory("other", text=number)).status_code == 202
        assert watch.seconds < 5
        for entry in entries(redis):
            set_outcome(redis, entry, body=b'{"id":"%b"}' % entry.delivery_id.encode())
        assert [answer.result().json() for answer in answers] == [{"id": delivery_id} for delivery_id in ids]


def test_a_request_whose_wait_times_out_is_told_not_to_send_again(relay: Serving) -> None:
    watch = Stopwatch()
    answer = relay.post(memory(SESSION, id="d1"), "/v1/webhook?wait=0.5")
    assert 0.4 < watch.seconds < 5
    assert answer.status_code == 202
    assert answer.json()["status"] == "pending"
    assert answer.json()["message"].startswith("Safely stored; it will take effect. Do not send it again")
    assert answer.json()["status_url"] == "/v1/deliveries/d1"


def test_wait_takes_precedence_over_sync(relay: Serving) -> None:
    watch = Stopwatch()
    answer = relay.post(memory(SESSION, sync=True), "/v1/webhook?wait=0")
    assert answer.json()["status"] == "accepted"
    assert watch.seconds < 5


@pytest.mark.parametrize("query", ["wait=41", "wait=-1", "wait=nan", "wait=soon", "wiat=1"])
def test_an_invalid_wait_is_refused(relay: Serving, redis: Redis, query: str) -> None:
    answer = relay.post(memory(SESSION), f"/v1/webhook?{query}")
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == query.split("=")[0]
    assert entries(redis) == []


def test_a_sender_that_disconnects_while_waiting_does_no_harm(relay: Serving, redis: Redis) -> None:
    with ThreadPoolExecutor(1) as pool:
        staying = pool.submit(relay.post, memory(SESSION, id="staying"), "/v1/webhook?wait=20")
        for number in range(20):
            body = b'{"command":"store_memory","id":"d%d","session_id":"s","data":{"content":1}}' % number
            head = f"POST /v1/webhook?wait=20 HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\n"
            with socket.create_connection(("127.0.0.1", relay.port)) as connection:
                connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                wait_for_entry(redis, f"d{number}")
        wait_for_entry(redis, "staying")
        for entry in entries(redis):
            set_outcome(redis, entry, body=b'{"id":"%b"}' % entry.delivery_id.encode())
        assert staying.result().json() == {"id": "staying"}


def test_waiting_requests_are_answered_at_once_on_shutdown(redis_url: str, redis: Redis, tmp_path: Path) -> None:
    serving = Serving("relay", tmp_path, REDIS_URL=redis_url)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(serving.post, memory(SESSION, id="d1"), "/v1/webhook?wait=40")
        wait_for_entry(redis, "d1")
        watch = Stopwatch()
        stopping = threading.Thread(target=serving.running.stop)
        stopping.start()
        assert answer.result().json()["status"] == "pending"
        stopping.join()
    assert watch.seconds < 5
    assert "Traceback" not in serving.log()
    serving.client.close()


# Refusing


@pytest.mark.parametrize("path", ["/v1/webhook", "/webhook", "/v1/commands/store_memory"])
@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}])
def test_requests_without_the_key_are_refused(relay: Serving, redis: Redis, path: str, headers: dict[str, str]) -> None:
    answer = httpx.post(relay.url + path, json=memory(SESSION), headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == ("unknown_key" if headers else "key_missing")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert entries(redis) == []


def test_the_key_can_be_a_bearer_token(relay: Serving) -> None:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    assert httpx.post(relay.url + "/v1/webhook", json=memory(SESSION), headers=headers).status_code == 202


def test_an_invalid_http_request_gets_an_error_in_the_same_form(relay: Serving) -> None:
    head, _, body = relay.exchange(b"hello\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"bad_request"' in body


def test_an_endless_head_is_cut_off(relay: Serving) -> None:
    answer = relay.exchange(b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 66_000)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"65,536 bytes" in answer


# Index, health and logs


def test_index_and_health_need_no_key(relay: Serving) -> None:
    index = httpx.get(relay.url + "/")
    assert index.json()["name"] == "session-relay"
    assert index.json()["links"]["webhook"] == "/v1/webhook"
    assert index.headers["cache-control"] == "no-store"
    assert "server" not in index.headers
    assert httpx.get(relay.url + "/healthz").json() == {"status": "ok"}
    assert httpx.get(relay.url + "/readyz").json() == {"webhooks": {"taken": True, "reason": None}, "redis": "ok"}
    assert httpx.head(relay.url + "/").status_code == 200


def test_logs_hold_no_payload_no_key_and_no_query(relay: Serving) -> None:
    relay.post(memory(SESSION, text="the-payload"), "/v1/webhook?wait=0.01")
    relay.post(b'{"the-payload"', "/v1/webhook")
    wait_for(lambda: "POST /v1/webhook 400 " in relay.log(), what="logged")
    assert "the-payload" not in relay.log()
    assert API_KEY not in relay.log()
    assert "wait=0.01" not in relay.log()


def test_a_full_inbox_refuses_webhooks_until_it_is_drained(redis_url: str, redis: Redis, tmp_path: Path) -> None:
    with closing(Serving("relay", tmp_path, REDIS_URL=redis_url, MAX_BACKLOG="3")) as serving:
        for number in range(4):
            inbox.push(redis, inbox.entry("store_memory", SESSION, content="x", source=f"sender-{number}"))
        refused = wait_for_status(503, lambda: serving.post(memory(SESSION)))
        assert refused.json()["error"]["code"] == "unavailable"
        assert refused.json()["error"]["retryable"] is True
        assert int(refused.headers["retry-after"]) > 0
        redis.flushdb()
        wait_for_status(202, lambda: serving.post(memory(SESSION)))


def test_it_refuses_webhooks_while_redis_is_low_on_memory(own_redis_url: str, own_redis: Redis, tmp_path: Path) -> None:
    with closing(Serving("relay", tmp_path, REDIS_URL=own_redis_url)) as serving:
        for number in range(200):  # So that the relay's own memory does not matter.
            own_redis.set(f"filler-{number}", bytes(100_000))
        own_redis.config_set("maxmemory", int(int(own_redis.info("memory")["used_memory"]) / 0.8))
        refused = wait_for_status(503, lambda: serving.post(memory(SESSION)))
        assert "memory" in refused.json()["error"]["message"]
        own_redis.config_set("maxmemory", "512mb")
        wait_for_status(202, lambda: serving.post(memory(SESSION)))


def test_a_single_process_has_no_supervisor(relay: Serving) -> None:
    assert psutil.Process(relay.running.pid).children() == []
    assert listening(relay.running.pid, relay.port) == 1


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"REDIS_URL": "redis://127.0.0.1:1/0"}, "Set API_KEY, WEBHOOK_SECRETS or GITHUB_WEBHOOK_SECRET"),
        ({"API_KEY": "k"}, "REDIS_URL is not set"),
        ({"API_KEY": "k", "RELAY_PROCESSES": "1"}, "REDIS_URL is not set"),
        ({"API_KEY": "k", "RELAY_PROCESSES": "17"}, "RELAY_PROCESSES is 17: expected a number from 1 to 16"),
        ({"API_KEY": "k", "REDIS_URL": "127.0.0.1"}, "REDIS_URL is not valid"),
        (
            {"API_KEY": "k", "REDIS_URL": "redis://127.0.0.1:1/0", "PORT": "x"},
            "PORT is not valid: expected a number, not 'x'.",
        ),
        ({"API_KEY": "k", "WEBHOOK_SECRETS": "a=whsec_!"}, "Invalid WEBHOOK_SECRETS: secret 1 is not base64"),
    ],
)
def test_it_does_not_start_without_required_settings(environment: dict[str, str], says: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert run_room("relay", log, {"RELAY_PROCESSES": "2", **environment}) == 2
    assert log.read_text().count(says) == 1
    assert "Traceback" not in log.read_text()


def test_a_redelivery_does_not_get_the_outcome_of_an_earlier_attempt(relay: Serving, redis: Redis) -> None:
    """Its key is the same and lasts for a minute, while the delivery may be evaluated again."""

    def looks() -> int:
        stats = cast("dict[str, dict[str, int]]", redis.info("commandstats"))
        return stats.get("cmdstat_mget", {}).get("calls", 0)

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(relay.post, memory("s", id="again"), "/v1/webhook?wait=20")
        entry = wait_for_entry(redis, "again")
        key = outcome_key(entry.source, entry.delivery_id, entry.hash)
        before = Outcome(status=409, body=msgspec.Raw(b"{}"), accepted_at=entry.accepted_at - timedelta(seconds=30))
        redis.set(key, msgspec.json.encode(before), ex=60)
        seen = looks()
        wait_for(lambda: looks() > seen + 1, what="outcome checked again")
        set_outcome(redis, entry, body=b'{"status": "success"}')
        assert (waiting.result().status_code, waiting.result().json()) == (200, {"status": "success"})


def test_the_log_of_a_process_that_was_stopped_has_its_last_line(redis_url: str, tmp_path: Path) -> None:
    serving = Serving("relay", tmp_path, REDIS_URL=redis_url)
    serving.close()
    assert "Finished server process" in serving.log().splitlines()[-1]
