"""Webhooks that have arrived in whole are answered without a task; all others, and all errors, are left to one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
from redis import Redis
from starlette.types import Message, Scope

from models.settings import Settings
from relay.app import RelayApp, create_relay
from relay.http.protocol import RESPOND
from tests.support.processes.serving import entries
from tests.support.project import API_KEY

HEADERS = {"x-api-key": API_KEY, "content-type": "application/json"}
LIMIT = 100_000
SECONDS = 20


def body_of(text: str = "x", **fields: object) -> bytes:
    return msgspec.json.encode({"command": "store_memory", "session_id": "walk", "data": {"content": text}} | fields)


class Relay:
    """A relay in this process, and its answers."""

    def __init__(self, app: RelayApp, client: httpx.AsyncClient) -> None:
        self._app = app
        self._client = client
        self.allowance: Any = None

    def takes(self, body: bytes, answers: asyncio.Queue[Any], *, is_read: bool = True, **headers: str) -> bool:
        """Offer a request; its answer is put into the queue: status and body, or the app that has to be run."""

        def respond(status: int, _: bytes, content: bytes) -> bool:
            self.allowance = scope["state"].get("allowance")
            if is_read:
                answers.put_nowait((status, msgspec.json.decode(content)))
            return is_read

        named = HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/webhook",
            "query_string": b"",
            "client": ("127.0.0.1", 1),
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
            "state": {},
            "extensions": {RESPOND: respond},
        }
        return self._app.answer_at_once(scope, body, lambda app: answers.put_nowait((scope, app)))

    async def answer(self, body: bytes, **kind: Any) -> Any:
        """Answer a request at once. Before, others reserve quota by the usual way: without it none is taken."""
        answers: asyncio.Queue[Any] = asyncio.Queue()
        async with asyncio.timeout(SECONDS):
            while not self.takes(body, answers, **kind):
                (await self._client.post("/v1/webhook", content=body_of("other"), headers=HEADERS)).raise_for_status()
            return await answers.get()


@asynccontextmanager
async def serving(redis_url: str) -> AsyncIterator[Relay]:
    app = create_relay(Settings(redis_url=redis_url, api_key=API_KEY, rate_limit=f"{LIMIT}/minute"))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://relay") as client,
    ):
        yield Relay(app, client)


def test_a_stored_webhook_a_repeat_and_a_conflict_are_answered_at_once(redis: Redis, redis_url: str) -> None:
    async def check() -> None:
        async with serving(redis_url) as relay:
            assert await relay.answer(body_of("one", id="walk-1")) == (
                202,
                {
                    "status": "accepted",
                    "delivery_id": "walk-1",
                    "session_id": "walk",
                    "command": "store_memory",
                    "status_url": "/v1/deliveries/walk-1",
                    "duplicate": False,
                },
            )
            assert relay.allowance.limit == LIMIT
            status, receipt = await relay.answer(body_of("one", id="walk-1"))
            assert (status, receipt["duplicate"]) == (202, True)
            status, refused = await relay.answer(body_of("two", id="walk-1"))
            assert (status, refused["error"]["code"]) == (409, "delivery_conflict")
        assert [entry.delivery_id for entry in entries(redis)].count("walk-1") == 1

    asyncio.run(check())


def test_what_has_to_wait_or_is_refused_is_left_to_a_task_and_not_counted(redis: Redis, redis_url: str) -> None:
    async def check() -> None:
        async with serving(redis_url) as relay:
            await relay.answer(body_of("before", id="before"))
            stored = len(entries(redis))
            answers: asyncio.Queue[Any] = asyncio.Queue()
            assert not relay.takes(body_of(sync=True), answers)
            assert not relay.takes(b"{", answers)
            assert not relay.takes(body_of(colour="red"), answers)
            assert not relay.takes(body_of(), answers, x_api_key="wrong")
            assert not relay.takes(body_of(), answers, webhook_id="msg_1")
            assert not relay.takes(body_of(), answers, content_encoding="gzip")
            assert not relay.takes(body_of(), answers, content_type="text/html")
            assert not relay.takes(body_of(), answers, idempotency_key="a b")
            assert not relay.takes(b"", answers)
            assert answers.empty()
            assert len(entries(redis)) == stored

    asyncio.run(check())


def test_an_answer_that_the_client_does_not_read_yet_is_sent_by_a_task(redis: Redis, redis_url: str) -> None:
    async def check() -> None:
        async with serving(redis_url) as relay:
            scope, app = await relay.answer(body_of("late", id="late"), is_read=False)
            sent: list[Message] = []

            async def send(message: Message) -> None:
                sent.append(message)

            await app(scope, None, send)
        start, rest = sent
        assert start["status"] == 202
        assert b"ratelimit-limit" in dict(start["headers"])
        assert msgspec.json.decode(rest["body"])["delivery_id"] == "late"

    asyncio.run(check())
