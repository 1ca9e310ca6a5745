"""Work in Postgres off the event loop, in a bounded number of threads, and quickly refused while it is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from models.errors import Unavailable
from models.settings import Settings
from sessions.postgres.connections import create_engine, is_bad_value, is_too_slow, is_unavailable, unavailable
from sessions.store import value_refused

T = TypeVar("T")

THREADS = 16
"""Reads at a time, each with a connection."""
CLAIM_THREADS = 6
"""Claims and leases at a time: those of one agent wait for each other, and reads must not wait for them."""
READ_TIMEOUT_SECONDS = 15.0
"""Waiting for a thread included; the server ends each statement sooner."""
CHECK_TIMEOUT_SECONDS = 2.0
AWAY_SECONDS = 1.0
"""After a connection failed, reads are refused for so long without trying, or all threads would be held by trying."""


class Database:
    """An engine, and the threads that use it."""

    def __init__(self, settings: Settings, *, name: str = "api", threads: int = THREADS) -> None:
        """Connects nothing yet. Raises SettingsError without DATABASE_URL."""
        self._engine = create_engine(settings, application_name=f"session-relay {name}", pool_size=threads)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._away_until = 0.0

    async def read(
        self,
        work: Callable[[Connection], T],
        *,
        one_state: bool = False,
        timeout_seconds: float = READ_TIMEOUT_SECONDS,
    ) -> T:
        """What `work` returns, done in a thread within one transaction; with `one_state` all its statements see the
        same state. Raises Unavailable, and what `work` raises."""
        if time.monotonic() < self._away_until:
            raise unavailable()
        try:
            async with asyncio.timeout(timeout_seconds):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._transact, work, one_state)
        except TimeoutError as error:
            raise Unavailable("Too much is being read at the moment; try again in some seconds.") from error
        except SQLAlchemyError as error:
            if is_bad_value(error):
                raise value_refused() from error
            if not (is_unavailable(error) or is_too_slow(error)):
                raise
            if isinstance(error, DBAPIError) and getattr(error.orig, "pgcode", None) is None:
                self._away_until = time.monotonic() + AWAY_SECONDS
            raise unavailable() from error

    async def write(self, work: Callable[[Connection], T]) -> T:
        """The same for work that changes something. When it raises Unavailable, it may have been done all the same."""
        return await self.read(work)

    async def is_there(self) -> bool:
        """Whether Postgres answers."""
        try:
            await self.read(
                lambda connection: connection.execute(text("SELECT 1")), timeout_seconds=CHECK_TIMEOUT_SECONDS
            )
        except Unavailable:
            return False
        return True

    def close(self) -> None:
        """Let go of threads and connections; reads that are under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._engine.dispose()

    def _transact(self, work: Callable[[Connection], T], one_state: bool) -> T:
        engine = self._engine.execution_options(isolation_level="REPEATABLE READ") if one_state else self._engine
        with engine.begin() as connection:
            return work(connection)
