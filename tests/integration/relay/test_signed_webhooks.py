"""Signed webhooks over HTTP: how they are understood, and how events other than commands are handled."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib import import_module
from select import select as select_sockets
from typing import Any

import httpx
import msgspec
import psutil
import pytest
from redis import Redis
from sqlalchemy import Engine, select

from models.queue.inbox import dedup_key
from models.tables import DELIVERIES, EVENTS
from sessions.postgres.operations.deliveries import find_delivery
from tests.support.clients.signing import GITHUB_SECRET, WEBHOOK_SECRET, post_signed, send_github, sign
from tests.support.processes.serving import Serving, entries, memory, wait_for_status
from tests.support.project import API_KEY
from tests.support.stores.inbox import drain

CHAT_SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
SECRETS = f"walker={CHAT_SECRET},walker={WEBHOOK_SECRET},chat:chat-*=whsec_{'B' * 32}"


@pytest.fixture(scope="module")
def relay(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A relay with signing secrets."""
    folder = tmp_path_factory.mktemp("relay")
    serving = Serving(
        "relay", folder, REDIS_URL=redis_url, WEBHOOK_SECRETS=SECRETS, GITHUB_WEBHOOK_SECRET=GITHUB_SECRET
    )
    yield serving
    assert "Traceback" not in serving.log()
    for secret in (WEBHOOK_SECRET, CHAT_SECRET, GITHUB_SECRET, API_KEY, "the-payload"):
        assert secret not in serving.log()
    serving.close()


@pytest.fixture(autouse=True)
def _empty(redis: Redis) -> None:
    """Empty the inbox before each test."""


def delivery(engine: Engine, source: str, delivery_id: str) -> dict[str, Any] | None:
    with engine.connect() as connection:
        return find_delivery(connection, source=source, delivery_id=delivery_id)


# Commands


def test_a_signed_command_is_stored_under_the_name_of_its_secret(relay: Serving, redis: Redis) -> None:
    answer = post_signed(relay, memory("s", id="in-body"))
    assert answer.status_code == 202
    assert answer.json() == {
        "status": "accepted",
        "delivery_id": "msg-1",
        "session_id": "s",
        "command": "store_memory",
        "status_url": "/v1/deliveries/msg-1?source=walker",
        "duplicate": False,
    }
    (entry,) = entries(redis)
    assert (entry.source, entry.delivery_id, entry.scopes, entry.ignored) == ("walker", "msg-1", ["send"], "")


def test_a_signature_suffices_without_a_key(relay: Serving) -> None:
    body = msgspec.json.encode(memory("s"))
    for path in ("/webhook", "/v1/webhook"):
        assert httpx.post(relay.url + path, content=body, headers=sign(body)).status_code == 202


@pytest.mark.parametrize("library", ["standardwebhooks", "svix"])
@pytest.mark.parametrize("prefix", ["webhook", "svix"])
def test_signatures_of_other_libraries_are_accepted(relay: Serving, redis: Redis, library: str, prefix: str) -> None:
    webhook = import_module(library).Webhook  # Importing one of them takes two seconds.
    body = msgspec.json.encode(memory("s", text="Zoë"))
    now = datetime.now(UTC)
    headers = {
        f"{prefix}-id": "msg_2",
        f"{prefix}-timestamp": str(int(now.timestamp())),
        f"{prefix}-signature": webhook(WEBHOOK_SECRET).sign("msg_2", now, body.decode()),
    }
    assert relay.post(body, **headers).json()["delivery_id"] == "msg_2"
    assert relay.post(body + b" ", **headers).status_code == 401
    assert len(entries(redis)) == 1


def test_a_retry_that_is_signed_anew_with_either_secret_is_a_duplicate(relay: Serving, redis: Redis) -> None:
    assert post_signed(relay, memory("s"), at=time.time() - 60).json()["duplicate"] is False
    assert post_signed(relay, memory("s"), secret=CHAT_SECRET).json()["duplicate"] is True
    assert post_signed(relay, memory("s", text="other")).status_code == 409
    assert len(entries(redis)) == 1


def test_a_flat_command_can_be_signed(relay: Serving, redis: Redis) -> None:
    answer = post_signed(relay, {"session_id": "s", "content": 1}, path="/v1/commands/store_memory?wait=0")
    assert answer.json()["status"] == "accepted"
    assert entries(redis)[0].source == "walker"


def test_an_invalid_signed_command_is_explained(relay: Serving, redis: Redis) -> None:
    wrong = post_signed(relay, memory("s", text="x") | {"data": {"contnet": 1}})
    assert (wrong.status_code, wrong.json()["error"]["field"]) == (422, "data.contnet")
    body = b'{"command": the-payload'
    assert relay.post(body, **sign(body)).status_code == 400
    assert entries(redis) == []


@pytest.mark.parametrize(
    ("command", "data"),
    [
        ("get_session_summary", {}),
        ("list_sessions", {}),
        ("delete_memory", {"key": "k"}),
        ("delete_session", {"confirm": "s"}),
        ("batch", {"commands": [{"command": "delete_memory", "data": {"key": "k"}}]}),
        ("batch", {"commands": [{"command": "pause_session"}, {"command": "list_memories"}]}),
    ],
)
def test_a_signature_allows_neither_reads_nor_deletes(relay: Serving, redis: Redis, command: str, data: Any) -> None:
    session = {} if command == "list_sessions" else {"session_id": "s"}
    answer = post_signed(relay, {"command": command, "data": data, **session})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert entries(redis) == []


def test_a_secret_with_a_pattern_is_limited_to_those_sessions(relay: Serving, redis: Redis) -> None:
    secret = f"whsec_{'B' * 32}"
    assert post_signed(relay, memory("chat-1"), secret=secret).status_code == 202
    refused = post_signed(relay, memory("walk-1"), "msg-2", secret=secret)
    assert (refused.status_code, refused.json()["error"]["expected"]) == (403, "a session_id that matches chat-*")
    (entry,) = entries(redis)
    assert (entry.source, entry.session_glob) == ("chat", "chat-*")


# Refusing


def test_a_key_does_not_make_up_for_an_invalid_signature(relay: Serving, redis: Redis) -> None:
    body = msgspec.json.encode(memory("s"))
    bad = sign(body, secret="whsec_" + "C" * 32)
    for headers, code in (
        (bad, "signature_invalid"),
        ({"webhook-id": "msg-1"}, "signature_missing"),
        ({"webhook-signature": "v1"}, "signature_missing"),
        (sign(body) | {"webhook-signature": "v1"}, "signature_invalid"),
        (sign(body) | {"webhook-timestamp": "123.9"}, "signature_invalid"),
        (sign(body, at=time.time() - 400), "clock_skew"),
        (sign(body, at=time.time() + 400), "clock_skew"),
        (sign(body, "a.b"), "signature_invalid"),
        ({"X-GitHub-Event": "push"}, "signature_missing"),
        ({"X-Hub-Signature-256": "sha256=" + "0" * 64}, "signature_invalid"),
        ({"X-Hub-Signature-256": "x"}, "signature_invalid"),
    ):
        answer = relay.post(body, **headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, code), headers
        assert answer.json()["error"]["hint"]
    assert entries(redis) == []


def test_a_header_that_is_not_text_is_an_invalid_signature(relay: Serving) -> None:
    body = msgspec.json.encode(memory("s"))
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        headers = {key.encode(): value.encode() for key, value in sign(body).items()} | {name.encode(): b"\xff\xd9\xa1"}
        answer = httpx.post(relay.url + "/v1/webhook", content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "signature_invalid")


# Events


def test_an_event_is_recorded_as_ignored_without_effect(relay: Serving, redis: Redis, engine: Engine) -> None:
    event = {"type": "user.created", "data": {"name": "the-payload"}}
    answer = post_signed(relay, event, "msg-event")
    assert answer.status_code == 202
    assert answer.json() == {
        "status": "ignored",
        "delivery_id": "msg-event",
        "session_id": None,
        "command": "",
        "reason": "Its type is not collaborative_session_command.",
        "status_url": "/v1/deliveries/msg-event?source=walker",
        "duplicate": False,
    }
    (entry,) = entries(redis)
    assert b"the-payload" not in msgspec.json.encode(entry)
    assert redis.ttl(dedup_key("walker", "msg-event")) == -1
    assert "drain shard 00: 1 ignored" in drain(redis, engine)
    assert entries(redis) == []
    kept = delivery(engine, "walker", "msg-event")
    assert kept is not None
    assert (kept["status"], kept["command"], kept["session_id"]) == ("ignored", "", None)
    assert msgspec.json.decode(kept["reason"]) == "Its type is not collaborative_session_command."
    with engine.connect() as connection:
        rows = connection.execute(select(DELIVERIES).where(DELIVERIES.c.delivery_id == "msg-event")).all()
        assert "the-payload" not in repr(rows)
        assert connection.execute(select(EVENTS).where(EVENTS.c.delivery_id == "msg-event")).all() == []


def test_a_repeated_event_is_a_duplicate_even_when_redis_has_lost_it(
    relay: Serving, redis: Redis, engine: Engine
) -> None:
    first = post_signed(relay, {"type": "a.b"}, "msg-again").json()
    assert post_signed(relay, {"type": "a.b"}, "msg-again").json() == first | {"duplicate": True}
    assert post_signed(relay, {"type": "other"}, "msg-again").status_code == 409
    assert len(entries(redis)) == 1
    drain(redis, engine)
    redis.flushdb()
    post_signed(relay, {"type": "a.b"}, "msg-again")
    post_signed(relay, memory("s"), "msg-2-again")
    assert "drain shard 00: 1 duplicate" in drain(redis, engine)
    redis.flushdb()
    post_signed(relay, {"command": "create_session", "data": {"title": "x"}}, "msg-again")
    assert any("1 conflict" in done for done in drain(redis, engine))
    kept = delivery(engine, "walker", "msg-again")
    assert kept is not None
    assert (kept["status"], kept["conflicts"]) == ("ignored", 1)


def test_events_among_commands_do_not_disturb_them(relay: Serving, redis: Redis, engine: Engine) -> None:
    for number in range(3):
        post_signed(relay, {"type": "noise", "n": number}, f"msg-noise-{number}")
        post_signed(relay, {"command": "create_session", "data": {"title": f"Noise {number}"}}, f"msg-command-{number}")
    drain(redis, engine)
    for number in range(3):
        noise, command = (delivery(engine, "walker", f"msg-{kind}-{number}") for kind in ("noise", "command"))
        assert noise is not None
        assert command is not None
        assert (noise["status"], command["status"]) == ("ignored", "applied")


def test_a_waiting_sender_of_an_event_gets_its_response_at_once(relay: Serving) -> None:
    watch = time.monotonic()
    assert post_signed(relay, {"type": "a.b"}, path="/v1/webhook?wait=30").json()["status"] == "ignored"
    assert time.monotonic() - watch < 10


def test_with_a_key_an_event_is_refused_as_an_invalid_command(relay: Serving, redis: Redis) -> None:
    assert relay.post({"type": "user.created"}).status_code == 422
    assert entries(redis) == []


# GitHub


def test_a_github_event_is_ignored_once_under_any_delivery_id(relay: Serving, redis: Redis, engine: Engine) -> None:
    body = b'{"zen": "Design for failure.", "hook_id": 1}'
    first = send_github(relay, body, event="ping", id="one").json()
    assert (first["status"], first["reason"]) == ("ignored", "The GitHub event ping is not a command.")
    assert first["status_url"] == f"/v1/deliveries/{first['delivery_id']}?source=github"
    again = send_github(relay, body, event="ping", id="two").json()
    assert again == first | {"duplicate": True}
    assert len(entries(redis)) == 1
    other = send_github(relay, body.replace(b"1", b"2"), event="ping", id="one").json()
    assert (other["status"], other["duplicate"]) == ("ignored", False)
    drain(redis, engine)
    redis.flushdb()
    send_github(relay, body, event="push", id="three")
    assert "drain shard 00: 1 duplicate" in drain(redis, engine)


def test_a_command_in_a_repository_dispatch_is_accepted(relay: Serving, redis: Redis) -> None:
    body = msgspec.json.encode({"action": "note", "client_payload": memory("s", text="x"), "sender": {"login": "octo"}})
    answer = send_github(relay, body, event="repository_dispatch", id="one")
    assert (answer.status_code, answer.json()["status"], answer.json()["command"]) == (202, "accepted", "store_memory")
    assert send_github(relay, body, event="repository_dispatch", id="two").json() == answer.json() | {"duplicate": True}
    (entry,) = entries(redis)
    assert (entry.source, entry.session_id, entry.scopes) == ("github", "s", ["send"])
    wrong = msgspec.json.encode({"client_payload": {"command": "get_artifact", "session_id": "s"}})
    assert send_github(relay, wrong, event="repository_dispatch").status_code == 422
    reads = msgspec.json.encode({"client_payload": {"command": "list_memories", "session_id": "s"}})
    assert send_github(relay, reads, event="repository_dispatch").status_code == 403
    assert len(entries(redis)) == 1


def test_unfinished_bodies_cannot_fill_the_memory_and_keys_keep_working(relay: Serving, redis: Redis) -> None:
    head = "POST /v1/webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n"
    lines = "".join(f"{name}: {value}\r\n" for name, value in sign(b"another body").items())
    half = f"{head}{lines}\r\n".encode() + b" " * 1_048_000
    with ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection(("127.0.0.1", relay.port))) for _ in range(140)]
        for connection in connections:
            connection.sendall(half)
        waiting, _, _ = select_sockets(connections, [], [], 20)
        answer = waiting[0].recv(65_536)
        assert answer.startswith(b"HTTP/1.1 429")
        assert b"retry-after: " in answer
        assert relay.post(memory()).status_code == 202
        assert psutil.Process(relay.running.pid).memory_info().rss < 600 * 1_048_576
    body = msgspec.json.encode(memory("s", text="the-payload"))
    wait_for_status(202, lambda: relay.client.post("/v1/webhook", content=body, headers=sign(body)))
    assert [entry.delivery_id for entry in entries(redis)][-1] == "msg-1"
