"""Claims that wait for a task: each new task wakes one suitable waiter, not all of them.

Waiters hold neither a thread nor a database connection. A woken waiter tries to claim, and waits again if others were
quicker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial

from sqlalchemy import Connection

from api.database import RELAY, Database
from models.errors import Unavailable
from models.queue.task_notifications import Claimable, TaskNotification
from relay.limits.concurrency import ConcurrencyLimiter
from sessions.postgres.tasks.claims import find_claimable, find_free

LOOK_SECONDS = 2.0
"""The interval of polling, once for all waiters, for tasks that have become due or whose notification was lost."""
MAX_WAITING = 1_000
"""Concurrent waiting claims: each costs a client connection and about 20 kB."""

Types = Collection[str] | None
"""Accepted types of tasks that name no agent; None for all."""


class ClaimWaiter:
    """One waiting claim."""

    def __init__(
        self, *, agent_name: str, types: Types, created_by: str | None, sees: Callable[[str | None], bool]
    ) -> None:
        self.agent_name = agent_name
        self.types = types
        self.woken = asyncio.Event()
        self.offered: Claimable | None = None
        """The task for which it was woken, until it tries to claim."""
        self._created_by = created_by
        self._sees = sees

    def suits(self, task: Claimable) -> bool:
        """Return whether this claim accepts the task."""
        if task.agent_name is None:
            is_for_it = self.types is None or task.task_type in self.types
        else:
            is_for_it = task.agent_name == self.agent_name
        return is_for_it and self._created_by in (None, task.created_by) and self._sees(task.session_id)


class ClaimWaiters:
    """The waiting claims of this process, the longest waiting first."""

    def __init__(self, database: Database, *, limit: int = MAX_WAITING) -> None:
        self._database = database
        self._limiter = ConcurrencyLimiter(limit)
        self._idle: dict[ClaimWaiter, None] = {}
        self._full: dict[ClaimWaiter, None] = {}
        """Waiters whose agents have reached max_concurrent."""

    def count(self) -> int:
        """Return how many claims wait."""
        return self._limiter.count()

    @contextmanager
    def wait(self, waiter: ClaimWaiter, *, source: str) -> Iterator[None]:
        """Register the waiter within the block, so that it can be woken while idle. Raises TooManyRequests or
        Unavailable if too many wait."""
        with self._limiter.acquire(source):
            try:
                yield
            finally:
                self._idle.pop(waiter, None)
                self._full.pop(waiter, None)
                if waiter.offered is not None:  # It leaves without having tried to claim this one.
                    self.notify(TaskNotification(claimable=[waiter.offered]))

    def set_idle(self, waiter: ClaimWaiter) -> None:
        """Wake the waiter for the next suitable task. Call this before trying to claim, so as not to miss a task that
        arrives meanwhile."""
        waiter.woken.clear()
        waiter.offered = None
        self._full.pop(waiter, None)
        self._idle[waiter] = None

    def set_full(self, waiter: ClaimWaiter) -> None:
        """Wake the waiter only when its agent has finished or released a task."""
        if waiter in self._idle:
            del self._idle[waiter]
            self._full[waiter] = None

    def notify(self, notification: TaskNotification) -> None:
        """Wake one waiter for each claimable task and each freed agent, and no more."""
        for agent_name in notification.freed:
            freed = next((waiter for waiter in self._full if waiter.agent_name == agent_name), None)
            if freed is not None:
                del self._full[freed]
                freed.woken.set()
        for task in notification.claimable:
            chosen = next((waiter for waiter in self._idle if waiter.suits(task)), None)
            if chosen is not None:
                del self._idle[chosen]
                chosen.offered = task
                chosen.woken.set()

    async def run(self) -> None:
        """Poll for tasks while claims wait, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._idle or self._full:
                find = partial(
                    _find_claimable, idle=list(self._idle), full={waiter.agent_name for waiter in self._full}
                )
                try:
                    self.notify(await self._database.read(find, source=RELAY))
                except Unavailable:
                    continue  # A waiter gets the error itself when its time is over.


def _find_claimable(
    connection: Connection, *, idle: Collection[ClaimWaiter], full: Collection[str]
) -> TaskNotification:
    names = {waiter.agent_name for waiter in idle}
    types: set[str] | None = set()
    for waiter in idle:
        types = None if types is None or waiter.types is None else types | set(waiter.types)
    return TaskNotification(
        claimable=find_claimable(connection, names=names, types=types) if idle else [],
        freed=find_free(connection, full) if full else [],
    )
