"""Those who wait until a task has finished or asks. They hold neither a thread nor a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
from redis.asyncio import Redis

from models.field_types import SETTLED
from models.queue.inbox import Outcome
from models.queue.task_notifications import TASKS_CHANNEL, TaskNotification
from relay.notifications.subscription import subscribe
from relay.notifications.waiters import Waiters

LOOK_SECONDS = 5.0
"""How late it may be known whose announcement was missed."""


class TaskNotifier:
    """The news of tasks in this process: for who waits for one task, and for whoever else listens."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiters: Waiters[tuple[str, str], asyncio.Event] = Waiters()
        self._listeners: list[Callable[[TaskNotification], None]] = []

    async def run(self) -> None:
        """Hear the news, until cancelled."""
        await subscribe(self._redis, TASKS_CHANNEL, self._on_message)

    def listen(self, listener: Callable[[TaskNotification], None]) -> None:
        """Call it with all news from now on."""
        self._listeners.append(listener)

    @contextmanager
    def settled(self, session_id: str, task_id: str) -> Iterator[asyncio.Event]:
        """An event that is set when the task finishes or asks, within the block."""
        with self._waiters.add((session_id, task_id), asyncio.Event()) as event:
            yield event

    def _on_message(self, message: bytes) -> None:
        news = msgspec.json.decode(message, type=TaskNotification)
        for key in news.settled:
            for event in self._waiters.get(key):
                event.set()
        for listener in self._listeners:
            listener(news)


class _TaskState(msgspec.Struct):
    status: str


class _Data(msgspec.Struct):
    task: _TaskState


class _Shown(msgspec.Struct):
    data: _Data


def is_settled(outcome: Outcome) -> bool:
    """Whether the answer to a get_task is worth no more waiting."""
    try:
        return msgspec.json.decode(outcome.body, type=_Shown).data.task.status in SETTLED
    except msgspec.ValidationError:
        return True  # It is an error, or tells nothing to who may not read.
