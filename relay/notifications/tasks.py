"""Those who wait until a task has finished or asks. They hold neither a thread nor a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
from redis.asyncio import Redis

from models.commands.definitions import GetTask
from models.commands.field_types import SETTLED
from models.queue.inbox import Entry, Outcome
from models.queue.task_notifications import TASKS_CHANNEL, TaskNews
from relay.notifications.subscription import follow
from relay.notifications.waiters import Waiters

LOOK_SECONDS = 5.0
"""How late it may be known whose announcement was missed."""


class TaskWatch:
    """The news of tasks in this process: for who waits for one task, and for whoever else listens."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiters: Waiters[tuple[str, str], asyncio.Event] = Waiters()
        self._listeners: list[Callable[[TaskNews], None]] = []

    async def run(self) -> None:
        """Hear the news, until cancelled."""
        await follow(self._redis, TASKS_CHANNEL, self._hear)

    def listen(self, listener: Callable[[TaskNews], None]) -> None:
        """Call it with all news from now on."""
        self._listeners.append(listener)

    @contextmanager
    def settled(self, session_id: str, task_id: str) -> Iterator[asyncio.Event]:
        """An event that is set when the task finishes or asks, within the block."""
        with self._waiters.add((session_id, task_id), asyncio.Event()) as event:
            yield event

    def _hear(self, message: bytes) -> None:
        news = msgspec.json.decode(message, type=TaskNews)
        for key in news.settled:
            for event in self._waiters.get(key):
                event.set()
        for listener in self._listeners:
            listener(news)


class _Task(msgspec.Struct):
    status: str


class _Data(msgspec.Struct):
    task: _Task


class _Shown(msgspec.Struct):
    data: _Data


def task_of(entry: Entry) -> tuple[str, str]:
    """The task that a get_task asks for."""
    return entry.session_id or "", msgspec.json.decode(entry.data, type=GetTask).task_id


def is_settled(outcome: Outcome) -> bool:
    """Whether the answer to a get_task is worth no more waiting."""
    try:
        return msgspec.json.decode(outcome.body, type=_Shown).data.task.status in SETTLED
    except msgspec.ValidationError:
        return True  # It is an error, or tells nothing to who may not read.
