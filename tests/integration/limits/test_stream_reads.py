"""The reads of an event stream from Postgres: by pages, and seldom, whatever its client asks for."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

from redis import Redis
from sqlalchemy import Engine, text
from starlette.applications import Starlette
from starlette.types import Message

from api.database import Database
from api.sessions.events import Events, find_positions
from models.queue.inbox import JOURNAL_CHANNEL
from models.settings import Settings
from relay.ingest.endpoints import Ingest
from relay.notifications.journal import JournalNotifier
from tests.support.project import API_KEY
from tests.support.stores.inbox import drain, entry

EVENTS = 300


class CountingDatabase(Database):
    """Counts reads."""

    reads = 0

    async def read(self, work: Callable[..., Any], **options: Any) -> Any:
        self.reads += bool(options["source"])
        return await super().read(work, **options)


def insert_events(engine: Engine, session_id: str, count: int) -> None:
    insert = """
        INSERT INTO events (session_id, event, status, source, message, data, created_at)
        SELECT :session_id, 'store_memory', 'applied', 'tests', 'said', '{}', now() FROM generate_series(1, :count)"""
    with engine.begin() as connection:
        connection.execute(text(insert), {"session_id": session_id, "count": count})


def test_a_stream_reads_few_pages_and_at_most_four_times_a_second(
    redis: Redis, redis_url: str, engine: Engine, database_url: str
) -> None:
    session_id = f"stream-{secrets.token_hex(6)}"
    drain(redis, engine, entry("create_session", session_id, title="Stream"))
    insert_events(engine, session_id, EVENTS)
    settings = Settings(database_url=database_url, redis_url=redis_url, api_key=API_KEY)

    async def follow() -> None:
        ingest, database = Ingest(settings), CountingDatabase(settings)
        journal = JournalNotifier(ingest.redis, partial(find_positions, database))
        events = Events(access=ingest.access, database=database, journal=journal, stopping=ingest.stopping)
        body = bytearray()

        async def send(message: Message) -> None:
            body.extend(message.get("body", b""))

        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        async def came(count: int) -> None:
            async with asyncio.timeout(20):
                while body.count(b"\nid: ") < count:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

        scope = {
            "type": "http",
            "method": "GET",
            "path": f"/v1/sessions/{session_id}/events",
            "query_string": b"limit=1",
            "headers": [(b"accept", b"text/event-stream"), (b"x-api-key", API_KEY.encode())],
        }
        tasks = [asyncio.create_task(journal.run())]
        tasks.append(asyncio.create_task(Starlette(routes=events.routes)(scope, receive, send)))
        try:
            await came(EVENTS)
            assert database.reads <= 5
            before = database.reads
            insert_events(engine, session_id, 1)
            for _ in range(100):
                await ingest.redis.publish(JOURNAL_CHANNEL, session_id)
                await asyncio.sleep(0.01)
            await came(EVENTS + 1)
            assert database.reads - before <= 12
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            database.close()
            await ingest.redis.aclose()

    asyncio.run(follow())
