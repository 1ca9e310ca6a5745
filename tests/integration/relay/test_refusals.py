"""Refused requests as admins see them: who, why and where, and nothing that they contained."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import pytest
from redis import Redis
from standardwebhooks.webhooks import Webhook

from local.servers.embedded import start_valkey
from models.errors import Invalid, NotFound, Unauthorized, Unavailable
from relay.redis_client import open_redis
from relay.rejections import COUNTS_KEY, KEPT, KEPT_PER_SECOND, LIST_KEY, RejectionLog
from tests.support.processes.serving import Serving, memory
from tests.support.processes.stack import wait_for
from tests.support.project import API_KEY
from tests.support.servers import new_folder

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HIDDEN = ("wrong-key", SECRET, "hidden-text", "hidden-query", "v1,", "srh_", "webhook-id-of-the-sender")


@pytest.fixture(scope="module")
def relay(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A relay behind a proxy, with a signing secret beside its key."""
    serving = Serving(
        "relay",
        tmp_path_factory.mktemp("relay"),
        REDIS_URL=redis_url,
        WEBHOOK_SECRETS=f"railway={SECRET}",
        TRUSTED_PROXY_HEADER="X-Real-IP",
        ALLOWED_IPS="203.0.113.0/24",
    )
    serving.client.headers["X-Real-IP"] = "203.0.113.5"
    yield serving
    assert not [text for text in HIDDEN if text in serving.log()]
    serving.close()


@pytest.fixture(autouse=True)
def _empty(relay: Serving, redis: Redis) -> None:
    """Clear the refusals before each test, and start a new second, in which none has been kept."""
    assert relay.client.get("/v1/refusals").status_code == 200  # This brings the refusals of the previous test.
    redis.flushdb()
    second = int(time.time())
    wait_for(lambda: int(time.time()) != second, what="the next second")


def read(relay: Serving, count: int, **parameters: Any) -> Any:
    """Return the list, once so many refusals have been counted."""
    answers: list[Any] = []

    def came() -> bool:
        answer = relay.client.get("/v1/refusals", params=parameters)
        assert answer.status_code == 200, answer.text
        answers.append(answer.json())
        counts: dict[str, int] = answers[-1]["counts"]
        return sum(counts.values()) >= count

    wait_for(came, what=f"{count} refusals")
    return answers[-1]


def signed(*, id: str = "msg_1", timestamp: str = "1") -> dict[str, str]:
    return {"webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": "v1," + "A" * 43 + "="}


SOON = "99999999999"
Case = tuple[str, str, int, dict[str, Any]]
BAD_SENDERS: list[Case] = [
    ("unknown_key", "unknown_key", 401, {"headers": {"X-API-Key": "wrong-key"}}),
    ("no_key", "key_missing", 401, {"headers": {"X-API-Key": ""}}),
    ("clock_skew", "clock_skew", 401, {"headers": signed(id="webhook-id-of-the-sender")}),
    ("clock_skew", "clock_skew", 401, {"headers": signed(timestamp=SOON)}),
    ("bad_signature", "signature_invalid", 401, {"headers": signed(timestamp="soon")}),
    ("bad_signature", "signature_missing", 401, {"headers": {"webhook-id": "webhook-id-of-the-sender"}}),
    ("address", "address_not_allowed", 403, {"headers": {"X-Real-IP": "198.51.100.9"}}),
]
BAD_REQUESTS: list[Case] = [
    ("schema", "missing_field", 422, {"json": {"command": "store_memory", "session_id": "s", "data": {}}}),
    ("schema", "unknown_field", 422, {"params": {"hidden-query": "1"}}),
    ("not_json", "not_json", 400, {"content": b"hidden-text"}),
    ("not_json", "undecodable", 400, {"content": b"hidden-text", "headers": {"Content-Encoding": "gzip"}}),
    ("too_large", "too_large", 413, {"content": b"x" * 2_000_000}),
    ("media_type", "unsupported_media_type", 415, {"headers": {"Content-Type": "text/html"}}),
]


@pytest.mark.parametrize(
    ("cases", "source"), [(BAD_SENDERS, None), (BAD_REQUESTS, "default")], ids=["senders", "requests"]
)
def test_refused_requests_are_listed_with_their_causes(
    relay: Serving, redis: Redis, cases: list[Case], source: str | None
) -> None:
    sizes = []
    for _, code, status, request in cases:
        content = {} if {"json", "content"} & request.keys() else {"json": memory(text="hidden-text")}
        answer = relay.client.post("/v1/webhook", **{**content, **request})
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        sizes.append(int(answer.request.headers["content-length"]))
    listed = read(relay, len(cases))
    assert listed["counts"] == Counter(cause for cause, *_ in cases)
    assert listed["next_cursor"] is None
    for (cause, code, status, _), size, item in zip(cases, sizes, reversed(listed["items"]), strict=True):
        assert item.pop("id")
        assert item.pop("at").endswith("Z")
        assert item == {
            "cause": cause,
            "code": code,
            "status": status,
            "method": "POST",
            "path": "/v1/webhook",
            "size": size,
            "address": "198.51.100.9" if cause == "address" else "203.0.113.5",
            "source": source,
        }
    assert not [text for text in HIDDEN if text.encode() in stored(redis)]


def test_a_signature_over_another_body_is_invalid(relay: Serving) -> None:
    now = datetime.now(UTC)
    signature = Webhook(SECRET).sign("msg_1", now, "{}")
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    assert relay.post(memory(), **headers).status_code == 401
    (item,) = read(relay, 1)["items"]
    assert (item["cause"], item["source"]) == ("bad_signature", None)


def test_a_token_in_the_url_is_masked(relay: Serving, redis: Redis) -> None:
    for path in ("/v1/hooks/srh_abcdefgh", "/v1/hooks/%73rh_abcdefgh"):
        assert relay.post({}, path).status_code == 404
    items = read(relay, 2)["items"]
    assert [(item["cause"], item["path"]) for item in items] == [("unknown_key", "/v1/hooks/{token}")] * 2
    assert b"abcdefgh" not in stored(redis)
    assert "abcdefgh" not in relay.log()


def test_a_conflicting_body_is_a_refusal_and_a_missing_record_is_not(relay: Serving) -> None:
    relay.post(memory(text=1, id="same"))
    assert relay.post(memory(text=2, id="same")).status_code == 409
    assert relay.client.get("/nothing").status_code == 404
    assert relay.client.delete("/v1/webhook").status_code == 405
    listed = read(relay, 1)
    assert listed["counts"] == {"conflict": 1}
    assert [item["code"] for item in listed["items"]] == ["delivery_conflict"]


def test_only_some_refusals_of_a_flood_are_kept_and_all_are_counted(relay: Serving, redis: Redis) -> None:
    with httpx.Client(base_url=relay.url, headers={"X-Real-IP": "203.0.113.6"}) as stranger:
        for _ in range(300):
            assert stranger.post("/v1/webhook", json={}).status_code == 401
    listed = read(relay, 300, limit=500)
    assert listed["counts"] == {"no_key": 300}
    times = [item["at"][:19] for item in listed["items"]]
    assert KEPT_PER_SECOND <= len(times) < 300
    assert len(times) <= KEPT_PER_SECOND * (len(set(times)) + 1)


def test_refusals_can_be_paged_and_filtered_by_cause(relay: Serving, redis: Redis) -> None:
    for number in range(4):
        relay.client.post("/v1/webhook", content=b"x" * number, headers={"X-API-Key": "wrong-key"})
        relay.client.post("/v1/webhook", content=b"not JSON")
    everything = read(relay, 8)["items"]
    assert [item["at"] for item in everything] == sorted((item["at"] for item in everything), reverse=True)
    first = read(relay, 8, limit=3, cause="unknown_key")
    second = read(relay, 8, limit=3, cause="unknown_key", cursor=first["next_cursor"])
    assert [item["size"] for item in first["items"] + second["items"]] == [3, 2, 1, 0]
    assert second["next_cursor"] is None
    assert first["counts"] == {"unknown_key": 4, "not_json": 4}
    redis.delete(LIST_KEY)
    assert read(relay, 8, cursor=first["next_cursor"])["items"] == []


def test_the_list_is_for_admins(relay: Serving) -> None:
    answer = relay.client.get("/v1/refusals", headers={"X-API-Key": "wrong-key"})
    assert answer.status_code == 401
    for parameters in ({"cause": "bad"}, {"cursor": "x"}, {"limit": "0"}, {"since": "1d"}):
        assert relay.client.get("/v1/refusals", params=parameters).status_code == 422


def test_the_public_app_lists_refusals_without_postgres(redis_url: str, redis: Redis, tmp_path: Path) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    serving = Serving("api", tmp_path, REDIS_URL=redis_url, DATABASE_URL=nowhere)
    try:
        assert serving.client.get("/v1/sessions", headers={"X-API-Key": "wrong-key"}).status_code == 401
        (item,) = read(serving, 1)["items"]
        assert (item["cause"], item["path"], item["address"]) == ("unknown_key", "/v1/sessions", "127.0.0.1")
        assert item["size"] is None
    finally:
        serving.close()


def scope(path: str = "/v1/webhook", **state: object) -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": path, "headers": [], "client": ("192.0.2.1", 1), "state": state}


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RejectionLog]:
    """Yield the rejection log of a process with this Redis."""
    connection = open_redis(url, connections=1)
    try:
        yield RejectionLog(connection)
    finally:
        await connection.aclose()


def stored(redis: Redis) -> bytes:
    """Return all stored refusals."""
    return b"\n".join(cast("list[bytes]", redis.lrange(LIST_KEY, 0, -1)))


async def note_many(refusals: RejectionLog, count: int, *, source: str = "first") -> None:
    """Record refusals as if each came in a second of its own, from a numbered source."""
    for number in range(count):
        refusals._second = -1
        refusals.record(scope(source=f"{source}-{number}"), Invalid())


def test_the_newest_thousand_are_kept(redis_url: str, redis: Redis) -> None:
    async def run() -> None:
        async with connected(redis_url) as refusals:
            await note_many(refusals, KEPT + 20)
            await refusals.flush()
            refusals.record(scope("/x" * 500, source="railway", address="203.0.113.9"), Unauthorized())
            items, counts = await refusals.read()
            assert len(items) == KEPT
            assert (items[0].source, items[0].address, len(items[0].path)) == ("railway", "203.0.113.9", 200)
            assert (items[1].source, items[-1].source) == ("first-1019", "first-21")
            assert counts == {"schema": KEPT + 20, "unknown_key": 1}

    asyncio.run(run())


def test_successes_and_server_errors_are_not_recorded_as_refusals(redis_url: str, redis: Redis) -> None:
    async def run() -> None:
        async with connected(redis_url) as refusals:
            for error in (NotFound(), Unavailable()):
                refusals.record(scope(), error)
            assert await refusals.read() == ([], {})

    asyncio.run(run())


def test_while_redis_is_down_the_newest_refusals_are_kept_and_all_are_counted() -> None:
    server = start_valkey(new_folder("valkey"))

    async def run() -> None:
        async with connected(server.url) as refusals:
            await note_many(refusals, 3, source="before")
            await refusals.flush()
            server.pause()
            await note_many(refusals, KEPT)
            await refusals.flush()
            await note_many(refusals, 10, source="then")
            await refusals.flush()
            with pytest.raises(Unavailable):
                await refusals.read()
            server.restart()
            items, counts = await refusals.read()
            assert counts == {"schema": KEPT + 13}
            assert len(items) == KEPT
            assert (items[0].source, items[-1].source) == ("then-9", "first-10")

    try:
        asyncio.run(run())
    finally:
        server.stop()


def test_refusals_are_stored_as_json(relay: Serving, redis: Redis) -> None:
    relay.client.post("/v1/webhook", content=b"not JSON")
    read(relay, 1)
    assert msgspec.json.decode(stored(redis))["cause"] == "not_json"
    assert redis.hgetall(COUNTS_KEY) == {b"not_json": b"1"}
    assert API_KEY.encode() not in stored(redis)
