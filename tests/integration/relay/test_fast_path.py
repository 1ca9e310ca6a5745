"""The fast path answers exactly as the app does: the same requests are sent to both. A slash at the end leads to the
app, whose middleware removes it."""

from __future__ import annotations

import gzip
import re

import msgspec
import pytest
from redis import Redis

from tests.support.clients.signing import sign
from tests.support.processes.serving import Serving, entries
from tests.support.processes.stack import wait_for
from tests.support.project import API_KEY

KEY = {"X-API-Key": API_KEY}
JSON = {**KEY, "Content-Type": "application/json"}
MEMORY = {"command": "store_memory", "session_id": "walk", "data": {"content": {"text": "Grüße", "n": 1.5}}}

Request = tuple[str, dict[str, str], bytes]


def body_of(**fields: object) -> bytes:
    return msgspec.json.encode(MEMORY | fields)


REQUESTS: dict[str, Request] = {
    "a webhook": ("/v1/webhook", JSON, body_of(id="one-ID")),
    "the alias": ("/webhook", JSON, body_of(id="alias-ID")),
    "a key as a token": ("/v1/webhook", {"Authorization": f"Bearer {API_KEY}"}, body_of(id="bearer-ID")),
    "an id in the header": ("/v1/webhook", {**JSON, "Idempotency-Key": '"header-ID"'}, body_of()),
    "an invalid id": ("/v1/webhook", {**JSON, "Idempotency-Key": "a b"}, body_of()),
    "a loose spelling": ("/v1/webhook", JSON, body_of(id="loose-ID", sync="false")),
    "a flat command": ("/v1/commands/store_memory", JSON, b'{"session_id": "walk", "content": [], "colour": 1}'),
    "an unknown command": ("/v1/commands/store_memories", JSON, b'{"session_id": "walk"}'),
    "a percent-encoded command": ("/v1/commands/store%5Fmemory", JSON, b'{"session_id": "walk"}'),
    "an unknown hook": ("/v1/hooks/srh_none", {}, b"{}"),
    "no key": ("/v1/webhook", {}, body_of()),
    "a wrong key": ("/v1/webhook", {"X-API-Key": "wrong"}, body_of()),
    "a signature of nobody": ("/v1/webhook", sign(body_of(), id="signed"), body_of()),
    "half a signature": ("/v1/webhook", {**KEY, "webhook-id": "x"}, body_of()),
    "two kinds of signatures": ("/v1/webhook", {"svix-id": "x", "X-GitHub-Event": "push"}, body_of()),
    "compressed": ("/v1/webhook", {**JSON, "Content-Encoding": "gzip"}, gzip.compress(body_of(id="gzip-ID"))),
    "badly compressed": ("/v1/webhook", {**JSON, "Content-Encoding": "gzip"}, b"not gzip"),
    "another encoding": ("/v1/webhook", {**JSON, "Content-Encoding": "br"}, body_of()),
    "another type": ("/v1/webhook", {**KEY, "Content-Type": "image/png"}, body_of()),
    "a form": ("/v1/webhook", {**KEY, "Content-Type": "application/x-www-form-urlencoded"}, b"a=b"),
    "a mark at the beginning": ("/v1/webhook", JSON, b"\xef\xbb\xbf" + body_of(id="mark-ID")),
    "too large": ("/v1/webhook", JSON, b'"' + b"x" * 1_100_000 + b'"'),
    "no body": ("/v1/webhook", JSON, b""),
    "no JSON": ("/v1/webhook", JSON, b"{"),
    "no object": ("/v1/webhook", JSON, b"[1]"),
    "no command": ("/v1/webhook", JSON, b'{"type": "push"}'),
    "an unknown field": ("/v1/webhook", JSON, body_of(colour="red")),
    "no session": ("/v1/webhook", JSON, msgspec.json.encode({"command": "store_memory", "data": {"content": 1}})),
}
FRAMES = ("with its length", "in chunks", "HTTP/1.0")


def ask(relay: Serving, path: str, headers: dict[str, str], body: bytes, *, frame: str) -> bytes:
    """The whole answer to a request, without what differs between any two."""
    version = "1.0" if frame == "HTTP/1.0" else "1.1"
    lines = [f"POST {path} HTTP/{version}", "Host: relay", *(f"{name}: {value}" for name, value in headers.items())]
    if frame == "in chunks":
        lines.append("Transfer-Encoding: chunked")
        half = len(body) // 2
        parts = [part for part in (body[:half], body[half:]) if part]
        sent = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    else:
        lines.append(f"Content-Length: {len(body)}")
        sent = body
    if version == "1.1":
        lines.append("Connection: close")
    answer = relay.exchange("\r\n".join(lines).encode() + b"\r\n\r\n" + sent)
    return re.sub(rb"(date|ratelimit-(?:remaining|reset)): [^\r]*|at most 300 from \d+", rb"\1", answer)


def with_id(request: Request, id: str) -> Request:
    """The request with an id of its own, of the same length as others'."""
    path, headers, body = request
    return path, {name: value.replace("ID", id) for name, value in headers.items()}, body.replace(b"ID", id.encode())


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("name", REQUESTS)
def test_the_answer_is_the_same_on_both_ways(relay: Serving, name: str, frame: str) -> None:
    answers: list[bytes] = []
    for number, slash in enumerate(("", "/")):
        id = f"{FRAMES.index(frame)}{number}"
        path, headers, body = with_id(REQUESTS[name], id)
        if name == "compressed":
            body = gzip.compress(gzip.decompress(REQUESTS[name][2]).replace(b"ID", id.encode()))
        for _ in range(2):  # The second is a repeat, if the first was accepted.
            answers.append(ask(relay, path + slash, headers, body, frame=frame).replace(f"-{id}".encode(), b"-ID"))
    assert answers[0].startswith(b"HTTP/1.1 ")
    assert b"\r\ncontent-length: " in answers[0]
    assert answers[:2] == answers[2:]


def test_the_entry_is_the_same_on_both_ways(relay: Serving, redis: Redis) -> None:
    redis.flushdb()
    for path in ("/v1/webhook", "/v1/webhook/"):
        assert relay.post(MEMORY, path).status_code == 202
    one, other = entries(redis)
    assert msgspec.structs.replace(one, delivery_id="", accepted_at=other.accepted_at) == msgspec.structs.replace(
        other, delivery_id=""
    )
    assert one.delivery_id != other.delivery_id


def test_both_ways_are_in_the_access_log_alike(relay: Serving) -> None:
    before = len(relay.log())
    for path in ("/v1/webhook", "/v1/webhook/"):
        assert relay.post(b"{", path).status_code == 400
    wait_for(lambda: relay.log()[before:].count(" 400 ") == 2, what="logged")
    lines = relay.log()[before:].splitlines()
    (line,) = {re.sub(r"^\S+Z +|[0-9.]+$", "", line) for line in lines}
    assert line == (
        "INFO    relay.access: POST /v1/webhook 400 outcome=refused cause=not_json source=default "
        "client=127.0.0.1 duration_ms="
    )


def test_both_ways_note_rejections_alike(relay: Serving, redis: Redis) -> None:
    noted = []
    for path, body in (("/v1/webhook", b"[[[[[[["), ("/v1/webhook/", b"[[[[[[[[")):

        def find(path: str = path, body: bytes = body) -> list[dict[str, object]]:
            assert relay.post(body, path).status_code == 400  # Of many in a second only some are kept.
            items = relay.client.get("/v1/refusals").json()["items"]
            return [item for item in items if item["size"] == len(body)]

        noted.append(wait_for(find, what="among the rejections")[0])
    one, other = [{k: v for k, v in item.items() if k not in ("id", "at", "size")} for item in noted]
    assert one == other
    assert (one["cause"], one["source"], one["address"]) == ("not_json", "default", "127.0.0.1")


def test_requests_that_were_sent_together_are_answered_in_order(relay: Serving) -> None:
    sent = b"".join(
        b"POST /v1/webhook HTTP/1.1\r\nHost: x\r\nX-API-Key: %b\r\nContent-Length: %d\r\n\r\n%b"
        % (API_KEY.encode(), len(body), body)
        for body in (body_of(id=f"row-{number}") for number in range(20))
    )
    last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answers = relay.exchange(sent + last)
    assert re.findall(rb'"delivery_id":"row-(\d+)"', answers) == [str(number).encode() for number in range(20)]
    assert answers.endswith(b'{"status":"ok"}')
