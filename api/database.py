"""Work in Postgres off the event loop, shared fairly among sources, and quickly refused while it is away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from api.fair_threads import RELAY, RELAY_THREADS, FairThreads
from models.errors import Unavailable
from models.settings import Settings
from sessions.commands.store import too_slow, value_refused
from sessions.postgres.connections import (
    create_engine,
    diagnose,
    is_bad_value,
    is_too_slow,
    is_unavailable,
    unavailable,
)
from sessions.postgres.reads.read_timeout import OutOfTime, time_limit

__all__ = ["CLAIM_THREADS", "RELAY", "Database"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

THREADS = 16
"""Reads of users at a time, each with a connection."""
CLAIM_THREADS = 8
"""Claims and leases at a time: those of one agent wait for each other, and reads must not wait for them."""
READ_SECONDS = 5.0
"""For one read, once it has begun."""
GRACE_SECONDS = 3.0
"""Beyond that for the server to say so."""
WRITE_SECONDS = 15.0
"""For one write; the server ends each statement sooner."""
WAIT_SECONDS = 10.0
"""For a turn."""
CHECK_TIMEOUT_SECONDS = 2.0
AWAY_SECONDS = 1.0
"""After a connection failed, reads are refused for so long without trying, or all threads would be held by trying."""


class Database:
    """An engine, and the threads that use it."""

    def __init__(self, settings: Settings, *, name: str = "api", threads: int = THREADS) -> None:
        """Connects nothing yet. Raises SettingsError without DATABASE_URL."""
        pool_size = threads + RELAY_THREADS
        self._engine = create_engine(settings, application_name=f"session-relay {name}", pool_size=pool_size)
        self._threads = FairThreads(threads, name=name)
        self._away_until = 0.0
        self._cause = ""
        """Why Postgres cannot be used, as it was logged."""
        self._looking: asyncio.Task[bool] | None = None

    async def read(
        self,
        work: Callable[[Connection], T],
        *,
        source: str,
        one_state: bool = False,
        seconds: float = READ_SECONDS,
    ) -> T:
        """Return what `work` returns, done in a thread within one transaction; with `one_state` all its statements see
        the same state. It is done for `source`, in its turn; RELAY goes ahead of all users.

        Raises TooManyRequests if the source has more under way than its share, Rejected if the statements of the work
        take longer than `seconds`, Unavailable, and what `work` raises."""
        timeout_seconds = seconds + (0 if source == RELAY else GRACE_SECONDS)
        try:
            return await self._run(partial(self._transact, work, one_state, seconds), source, timeout_seconds)
        except (OutOfTime, SQLAlchemyError) as error:
            if isinstance(error, OutOfTime) or is_too_slow(error):
                raise (unavailable() if source == RELAY else too_slow()) from error
            raise

    async def write(
        self,
        work: Callable[[Connection], T],
        *,
        source: str,
        seconds: float = WRITE_SECONDS,
    ) -> T:
        """The same for work that changes something, each statement of which may take as long as any. When it raises
        Unavailable, it may have been done all the same."""
        try:
            return await self._run(partial(self._transact, work, False, None), source, seconds)
        except SQLAlchemyError as error:
            if is_too_slow(error):
                raise unavailable() from error
            raise

    async def is_there(self) -> bool:
        """Whether Postgres answers. All who want to know at the same time look once."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._probe())
        return await asyncio.shield(self._looking)

    def close(self) -> None:
        """Let go of threads and connections; reads that are under way end by themselves."""
        self._threads.close()
        self._engine.dispose()

    async def _probe(self) -> bool:
        try:
            await self.read(
                lambda connection: connection.execute(text("SELECT 1")),
                source=RELAY,
                seconds=CHECK_TIMEOUT_SECONDS,
            )
        except Unavailable:
            return False
        return True

    async def _run(self, work: Callable[[], T], source: str, timeout_seconds: float) -> T:
        if time.monotonic() < self._away_until:
            raise unavailable()
        try:
            result = await self._threads.run(source, work, wait_seconds=WAIT_SECONDS, work_seconds=timeout_seconds)
        except TimeoutError as error:
            raise unavailable() from error
        except SQLAlchemyError as error:
            if is_bad_value(error):
                raise value_refused() from error
            if not is_unavailable(error):
                raise
            if isinstance(error, DBAPIError) and getattr(error.orig, "pgcode", None) is None:
                self._away_until = time.monotonic() + AWAY_SECONDS
                self._report(diagnose(error))
            raise unavailable() from error
        self._report("")
        return result

    def _report(self, cause: str) -> None:
        """Log when Postgres goes away, for each cause once, and when it is back."""
        if cause and cause != self._cause:
            logger.error("Reads are refused. %s", cause)
        elif self._cause and not cause:
            logger.warning("Postgres answers again.")
        self._cause = cause

    def _transact(self, work: Callable[[Connection], T], one_state: bool, seconds: float | None) -> T:
        engine = self._engine.execution_options(isolation_level="REPEATABLE READ") if one_state else self._engine
        with engine.begin() as connection, nullcontext() if seconds is None else time_limit(connection, seconds):
            return work(connection)
