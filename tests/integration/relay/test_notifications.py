"""Announcements that wake waiters, among unreadable messages."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection
from datetime import UTC, datetime

import msgspec
import pytest
from redis import Redis

from models.queue.inbox import JOURNAL_CHANNEL, OUTCOME_CHANNEL, Outcome, OutcomeMessage
from models.queue.task_notifications import TASKS_CHANNEL, TaskNotification
from relay.notifications.journal import JournalNotifier
from relay.notifications.outcomes import OutcomeWaiters
from relay.notifications.tasks import TaskNotifier
from relay.redis_client import open_redis

CHANNELS = (OUTCOME_CHANNEL, TASKS_CHANNEL, JOURNAL_CHANNEL)


async def find_no_positions(_: Collection[str]) -> dict[str, int]:
    return {}


@pytest.mark.parametrize("garbled", [b"\xff", b"{", b""])
def test_an_unreadable_message_does_not_keep_waiters_asleep(redis: Redis, redis_url: str, garbled: bytes) -> None:
    session_id, key = f"walk-{secrets.token_hex(6)}", f"sr:outcome:{secrets.token_hex(6)}"
    outcome = Outcome(status=200, body=msgspec.Raw(b"{}"))
    messages = {
        OUTCOME_CHANNEL: msgspec.json.encode(OutcomeMessage(key=key, outcome=outcome)),
        TASKS_CHANNEL: msgspec.json.encode(TaskNotification(settled=[(session_id, "t")])),
        JOURNAL_CHANNEL: f"other\n{session_id}".encode(),
    }

    async def wait() -> None:
        own = open_redis(redis_url, connections=8)
        outcomes, tasks, journal = OutcomeWaiters(own), TaskNotifier(own), JournalNotifier(own, find_no_positions)
        before = dict(redis.pubsub_numsub(*CHANNELS))
        services = [asyncio.create_task(service.run()) for service in (outcomes, tasks, journal)]
        with (
            outcomes.watch(key, accepted_at=datetime.now(UTC)) as told,
            tasks.settled(session_id, "t") as settled,
            journal.listen(session_id, source="tests") as grown,
        ):
            async with asyncio.timeout(20):
                while any(count <= before[name] for name, count in redis.pubsub_numsub(*CHANNELS)):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                for channel, message in messages.items():
                    redis.publish(channel, garbled)
                    redis.publish(channel, message)
                assert await told == outcome
                await settled.wait()
                await grown.wait()
        assert not any(service.done() for service in services)
        for service in services:
            service.cancel()
        await asyncio.gather(*services, return_exceptions=True)
        await own.aclose()

    asyncio.run(wait())
