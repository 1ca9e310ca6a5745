"""Irregular webhooks: accepted as they were meant, or refused with the setting that is wrong."""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterator
from urllib.parse import urlencode

import httpx
import msgspec
import pytest
from redis import Redis

from tests.support.clients.signing import GITHUB_SECRET, WEBHOOK_SECRET, sign
from tests.support.processes.serving import Serving, entries, memory
from tests.support.project import API_KEY

BODY = msgspec.json.encode(memory("s"))
MARK = b"\xef\xbb\xbf"


@pytest.fixture(scope="module")
def relay(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A relay with signing secrets beside its key."""
    secrets = {"WEBHOOK_SECRETS": f"walker={WEBHOOK_SECRET}", "GITHUB_WEBHOOK_SECRET": GITHUB_SECRET}
    serving = Serving("relay", tmp_path_factory.mktemp("relay"), REDIS_URL=redis_url, **secrets)
    yield serving
    serving.close()


@pytest.fixture(autouse=True)
def _empty(redis: Redis) -> None:
    """Empty the inbox before each test."""


def from_github(relay: Serving, body: bytes, media_type: str, event: str = "repository_dispatch") -> httpx.Response:
    digest = hmac.digest(GITHUB_SECRET.encode(), body, "sha256").hex()
    headers = {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Event": event, "Content-Type": media_type}
    return httpx.post(f"{relay.url}/v1/webhook", content=body, headers=headers)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json, application/json",
        "application/json; charset=utf-8, application/json",
        "text/json",
        "application/cloudevents+json; charset=utf-8",
        "application/octet-stream",
        "Application/JSON",
    ],
)
def test_json_under_another_media_type_is_accepted(relay: Serving, redis: Redis, media_type: str) -> None:
    assert relay.post(BODY, **{"Content-Type": media_type}).status_code == 202
    assert len(entries(redis)) == 1


def test_an_unsupported_media_type_is_refused_with_the_header_to_set(relay: Serving) -> None:
    for media_type, body in (
        ("image/png", BODY),
        ("application/json, image/png", BODY),
        ("application/octet-stream", b"\x89PNG"),
        ("application/x-www-form-urlencoded", b"payload=%7B%7D"),
        ("multipart/form-data; boundary=x", b"--x--"),
    ):
        error = relay.post(body, **{"Content-Type": media_type}).json()["error"]
        assert (error["code"], error["field"]) == ("unsupported_media_type", "Content-Type")
        assert "application/json" in error["hint"]


def test_a_repeated_media_type_header_counts_once(relay: Serving) -> None:
    headers = [("X-API-Key", API_KEY), ("Content-Type", "application/json"), ("Content-Type", "application/json")]
    assert httpx.post(f"{relay.url}/v1/webhook", content=BODY, headers=headers).status_code == 202


def test_a_byte_order_mark_before_the_body_is_ignored(relay: Serving, redis: Redis) -> None:
    assert relay.post(MARK + BODY).status_code == 202
    marked = MARK + BODY
    assert relay.post(marked, **sign(marked)).status_code == 202
    assert relay.post(marked, **sign(BODY)).status_code == 401
    assert len(entries(redis)) == 2


def test_a_github_form_contains_the_event_and_is_signed_as_sent(relay: Serving, redis: Redis) -> None:
    form = "application/x-www-form-urlencoded"
    dispatch = {"action": "store", "client_payload": memory("s", text="ü & +")}
    body = urlencode({"payload": msgspec.json.encode(dispatch).decode()}).encode()
    answer = from_github(relay, body, form)
    assert (answer.status_code, answer.json()["status"]) == (202, "accepted")
    assert answer.json()["delivery_id"].startswith("body-")
    [entry] = entries(redis)
    assert msgspec.json.decode(entry.data)["content"] == "ü & +"
    assert from_github(relay, body, form, event="push").status_code == 409
    assert from_github(relay, body.replace(b"store", b"other"), form, event="push").json()["status"] == "ignored"
    wrong = from_github(relay, b"a=1", form)
    assert (wrong.status_code, "application/json" in wrong.json()["error"]["hint"]) == (400, True)


@pytest.mark.parametrize("path", ["/v1/webhook/", "//v1/webhook", "/v1//webhook//", "/webhook/"])
def test_extra_slashes_lead_to_the_same_url(relay: Serving, redis: Redis, path: str) -> None:
    answer = relay.client.build_request("POST", "/v1/webhook", content=BODY)
    answer.url = httpx.URL(f"http://127.0.0.1:{relay.port}").copy_with(raw_path=path.encode())
    assert relay.client.send(answer).status_code == 202
    assert len(entries(redis)) == 1


@pytest.mark.parametrize("header", [f"X-API-Key:  \t{API_KEY} \t ", f"Authorization:  Bearer   {API_KEY}  "])
def test_blanks_around_a_key_are_ignored(relay: Serving, header: str) -> None:
    head = (
        f"POST /v1/webhook HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(BODY)}\r\n{header}\r\n\r\n"
    )
    assert relay.exchange(head.encode("latin-1") + BODY).startswith(b"HTTP/1.1 202 ")


def test_signing_senders_may_use_any_printable_characters_in_ids(relay: Serving, redis: Redis) -> None:
    ids = ["msg/1=", "msg/2=", "<a@b>"]
    for id in [*ids, *ids]:
        answer = relay.post(BODY, **sign(BODY, id, at=time.time() - 10))
        assert answer.status_code == 202
        assert answer.json()["status_url"].startswith("/v1/deliveries/id-")
    assert len({entry.delivery_id for entry in entries(redis)}) == len(entries(redis)) == 3


def test_lone_surrogates_and_repeated_keys_are_named(relay: Serving) -> None:
    error = relay.post(BODY.replace(b'"x"', b'"\\ud83d"')).json()["error"]
    assert "\\ud83d, half of a surrogate pair" in error["message"]
    error = relay.post(BODY.replace(b'"x"', b'{"k": 1, "k": 2}')).json()["error"]
    assert (error["code"], error["field"]) == ("repeated_key", "k")
