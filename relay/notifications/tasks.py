"""Wakes requests that wait until a task has finished or asks a question."""

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
"""Largest delay of a change whose message was lost."""


class TaskNotifier:
    """Passes task notifications on to requests that wait for one task, and to listeners for all tasks."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiters: Waiters[tuple[str, str], asyncio.Event] = Waiters()
        self._listeners: list[Callable[[TaskNotification], None]] = []

    async def run(self) -> None:
        """Receive notifications, until cancelled."""
        await subscribe(self._redis, TASKS_CHANNEL, self._on_message)

    def listen(self, listener: Callable[[TaskNotification], None]) -> None:
        """Call `listener` with all notifications from now on."""
        self._listeners.append(listener)

    @contextmanager
    def settled(self, session_id: str, task_id: str) -> Iterator[asyncio.Event]:
        """Gives an event that is set when the task finishes or asks."""
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
    """Whether the sender of a get_task need not wait any longer."""
    try:
        return msgspec.json.decode(outcome.body, type=_Shown).data.task.status in SETTLED
    except msgspec.ValidationError:
        return True  # An error, or a response to a sender that may not read.
