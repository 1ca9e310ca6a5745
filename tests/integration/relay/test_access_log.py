"""The access log of a served relay: each stored webhook has a line, whatever its client does; floods are counted."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from redis import Redis

from models.queue.inbox import Entry
from tests.support.ports import free_port
from tests.support.processes.serving import Serving, entries, memory
from tests.support.processes.stack import NO_LIMITS, START_SECONDS, new_id, wait_for
from tests.support.project import API_KEY, ROOT

FLOOD = 50


@pytest.fixture(scope="module")
def logging_relay(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("relay")
    with closing(Serving("relay", folder, REDIS_URL=redis_url, LOG_FORMAT="json")) as serving:
        yield serving


def lines_of(serving: Serving, **wanted: Any) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in serving.log().splitlines()]
    return [line for line in lines if all(line.get(name) == value for name, value in wanted.items())]


def wait_for_line(serving: Serving, **wanted: Any) -> dict[str, Any]:
    found = wait_for(lambda: lines_of(serving, **wanted), what=f"line with {wanted}")
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("path", ["/v1/webhook", "/v1/webhook/", "/v1/webhook?wait=0"])
def test_the_line_of_a_webhook_is_the_same_on_all_ways(logging_relay: Serving, path: str) -> None:
    delivery_id = new_id("delivery")
    logging_relay.post(memory("walk", id=delivery_id), path)
    line = wait_for_line(logging_relay, delivery_id=delivery_id)
    assert 0 < line.pop("duration_ms") < 30_000
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "INFO",
        "logger": "relay.access",
        "message": "POST /v1/webhook 202",
        "outcome": "accepted",
        "status": 202,
        "delivery_id": delivery_id,
        "source": "default",
        "command": "store_memory",
        "session": line["session"],
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/v1/webhook",
    }
    assert len(line["session"]) == 12


def hang_up_during_the_push(serving: Serving, redis: Redis, path: bytes) -> str:
    """Send a webhook to a Redis that writes nothing for a moment, and hang up. Returns its delivery id."""
    delivery_id = new_id("delivery")
    body = msgspec.json.encode(memory("walk", id=delivery_id))
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nX-API-Key: %b\r\nContent-Length: %d\r\n\r\n"
    for _ in range(8):  # So that the relay has reserved quota, and has nothing to ask before the push.
        assert serving.post(memory("walk")).status_code == 202
    redis.client_pause(300, all=False)
    with socket.create_connection(("127.0.0.1", serving.port), timeout=20) as connection:
        connection.sendall(head % (path, API_KEY.encode(), len(body)) + body)
        wait_for(lambda: redis.info("clients")["blocked_clients"], what="a client blocked")
    redis.set("after the pause", 1)
    return delivery_id


@pytest.mark.parametrize("path", [b"/v1/webhook", b"/v1/webhook/"])
def test_a_webhook_whose_client_has_hung_up_when_it_is_stored_has_its_line(
    own_redis_url: str, tmp_path: Path, path: bytes
) -> None:
    with (
        closing(Serving("relay", tmp_path, REDIS_URL=own_redis_url, LOG_FORMAT="json")) as serving,
        closing(Redis.from_url(own_redis_url)) as redis,
    ):
        sent: list[str] = []

        def find_stored() -> list[Entry]:
            sent.append(hang_up_during_the_push(serving, redis, path))
            return [entry for entry in entries(redis) if entry.delivery_id in sent]

        stored = wait_for(find_stored, what="one of them stored")
        line = wait_for_line(serving, delivery_id=stored[0].delivery_id)
    assert (line["message"], line["outcome"], line["status"]) == ("store_memory accepted", "accepted", 202)


def test_a_waiting_webhook_has_a_line_when_it_is_accepted_and_one_when_it_is_answered(logging_relay: Serving) -> None:
    delivery_id = new_id("delivery")
    assert logging_relay.post(memory("walk", id=delivery_id), "/v1/webhook?wait=0.2").status_code == 202
    wait_for(lambda: len(lines_of(logging_relay, delivery_id=delivery_id)) == 2, what="both lines")
    accepted, answered = lines_of(logging_relay, delivery_id=delivery_id)
    assert (accepted["message"], accepted["outcome"]) == ("store_memory accepted", "accepted")
    assert (answered["message"], answered["outcome"]) == ("POST /v1/webhook 202", "pending")
    assert accepted["duration_ms"] < answered["duration_ms"] >= 200


def test_repeated_and_refused_deliveries_have_their_cause(logging_relay: Serving) -> None:
    delivery_id = new_id("delivery")
    for text, outcome in (("one", "accepted"), ("one", "duplicate"), ("two", "refused")):
        logging_relay.post(memory("walk", text=text, id=delivery_id))
        line = wait_for_line(logging_relay, delivery_id=delivery_id, outcome=outcome)
        assert line.get("cause") == ("delivery_conflict" if outcome == "refused" else None)
    invalid = new_id("delivery")
    logging_relay.post({"command": "store_memory", "session_id": "walk"}, **{"Idempotency-Key": f'"{invalid}"'})
    line = wait_for_line(logging_relay, delivery_id=invalid)
    assert (line["outcome"], line["status"], line["source"]) == ("refused", 422, "default")


@pytest.mark.parametrize("line", [b"CONNECT x:1 HTTP/1.1", b"POST http://[ HTTP/1.1"])
def test_a_request_whose_target_cannot_be_read_has_a_line_and_no_traceback(logging_relay: Serving, line: bytes) -> None:
    answer = logging_relay.exchange(b"%b\r\nHost: x\r\n\r\n" % line)
    assert answer.startswith(b"HTTP/1.1 400")
    delivery_id = new_id("delivery")
    logging_relay.post(memory("walk", id=delivery_id))
    wait_for_line(logging_relay, delivery_id=delivery_id)  # By then, what came before is written.
    assert wait_for_line(logging_relay, cause="bad_request")["message"] == "unreadable request 400"
    assert not lines_of(logging_relay, level="ERROR")


def test_a_flood_of_wrong_keys_has_one_line_and_is_counted_at_the_end(redis_url: str, tmp_path: Path) -> None:
    serving = Serving("relay", tmp_path, REDIS_URL=redis_url, LOG_FORMAT="json")
    for _ in range(FLOOD):
        assert serving.post(memory(), **{"X-API-Key": "wrong"}).status_code == 401
    serving.close()
    (line,) = lines_of(serving, status=401)
    assert (line["outcome"], line["cause"], line["client"]) == ("refused", "unknown_key", "127.0.0.1")
    assert "source" not in line
    (counted,) = lines_of(serving, repeated=FLOOD - 1)
    assert counted["message"].startswith("A request of 127.0.0.1 was refused: unknown_key. This happened 49 more times")


def test_refused_webhooks_of_one_sender_leave_room_for_those_of_others(redis_url: str, tmp_path: Path) -> None:
    with closing(Serving("relay", tmp_path, REDIS_URL=redis_url, LOG_FORMAT="json")) as serving:
        for _ in range(70):
            assert serving.post(b"{").status_code == 400
        assert serving.post(memory(), **{"X-API-Key": "wrong"}).status_code == 401
        wait_for(lambda: lines_of(serving, status=401), what="logged")
        assert len(lines_of(serving, status=400)) == 60


def test_nothing_is_logged_below_the_level(redis_url: str, tmp_path: Path) -> None:
    serving = Serving("relay", tmp_path, REDIS_URL=redis_url, LOG_LEVEL="WARNING")
    serving.post(memory(), "/v1/webhook?wait=0.01")
    serving.post(b"{")
    serving.close()
    assert "relay.access" not in serving.log()


def test_a_relay_whose_log_nobody_reads_goes_on_and_can_be_stopped(redis_url: str) -> None:
    port = free_port()
    environment = {"PATH": os.environ["PATH"], "API_KEY": API_KEY, "PORT": str(port), "REDIS_URL": redis_url}
    environment |= {"RELAY_PROCESSES": "1", "LOG_FORMAT": "json", **NO_LIMITS}
    command = [sys.executable, "-m", "relay"]
    with (
        subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": API_KEY}, timeout=20) as client,
    ):
        wait_for(lambda: client.get("/healthz").status_code == 200, seconds=START_SECONDS, what="server responding")
        for _ in range(500):  # Their lines are more than a pipe takes.
            assert client.post("/v1/webhook", json=memory("walk")).status_code == 202
        process.terminate()
        process.wait(20)
