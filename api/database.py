"""Runs Postgres work off the event loop, shared fairly among sources. Rejects work quickly while Postgres is away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from api.fair_thread_pool import MAX_WAITING, RELAY, RELAY_THREADS, FairThreads
from models.errors import Unavailable
from models.settings import Settings
from relay import process_metrics
from relay.process_metrics import ProcessMetrics
from sessions.commands.store import too_slow, value_refused
from sessions.postgres.connections import (
    create_engine,
    diagnose,
    is_bad_value,
    is_too_slow,
    is_unavailable,
    unavailable,
)
from sessions.postgres.operations.schema_revision import describe_mismatch, read_revision
from sessions.postgres.reads.read_timeout import OutOfTime, time_limit

__all__ = ["RELAY", "Database", "claim_threads"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

THREADS = 16
"""Concurrent reads of users, each with a connection."""
LEAST_THREADS = 2
"""In each process of a relay, so that one slow read does not stop all others."""
CLAIM_THREADS = 8
"""Concurrent claims and lease changes. Those of one agent wait for each other, and must not delay reads."""
ALL_RELAY_THREADS = 8
"""Threads for the relay's own reads in all processes, of which each has at most RELAY_THREADS."""
READ_SECONDS = 5.0
"""Time limit of one read, once it has begun."""
GRACE_SECONDS = 3.0
"""Additional time for the server to report the timeout."""
WRITE_SECONDS = 15.0
"""Time limit of one write; the server ends each statement sooner."""
WAIT_SECONDS = 10.0
"""Time limit for waiting for a thread."""
CHECK_TIMEOUT_SECONDS = 2.0
AWAY_SECONDS = 1.0
"""Time without attempts after a failed connection; otherwise failing attempts would hold all threads."""


class Database:
    """An engine with the threads that use it."""

    def __init__(
        self, settings: Settings, *, name: str = "api", threads: int | None = None, relay_threads: int | None = None
    ) -> None:
        """Create the engine without connecting. By default it has the threads for reads, and for the relay's own.
        Raises SettingsError without DATABASE_URL."""
        if threads is None:
            threads = max(LEAST_THREADS, settings.part_of(THREADS))
        if relay_threads is None:
            relay_threads = min(RELAY_THREADS, settings.part_of(ALL_RELAY_THREADS))
        self.connections = threads + relay_threads
        """The most connections that it opens."""
        self._engine = create_engine(settings, application_name=f"session-relay {name}", pool_size=self.connections)
        self._threads = FairThreads(
            threads, relay_threads=relay_threads, name=name, max_waiting=settings.part_of(MAX_WAITING)
        )
        self._away_until = 0.0
        self._cause = ""
        """Why Postgres is unavailable, if it is."""
        self._check: asyncio.Task[bool] | None = None
        self.schema_trouble = ""
        """How the schema differed from the required one at the last check, and the remedy."""

    async def read(
        self,
        work: Callable[[Connection], T],
        *,
        source: str,
        one_state: bool = False,
        seconds: float = READ_SECONDS,
    ) -> T:
        """Run `work` in a thread within one transaction, and return its result. With `one_state` all its statements see
        the same snapshot. The work takes its turn among those of `source`; RELAY takes precedence over all users.

        Raises TooManyRequests if the source exceeds its share, Rejected if the statements take longer than `seconds`,
        Unavailable, and what `work` raises."""
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
        """Run work that writes, without the time limit of reads on its statements. After Unavailable the write may have
        taken effect."""
        try:
            return await self._run(partial(self._transact, work, False, None), source, seconds)
        except SQLAlchemyError as error:
            if is_too_slow(error):
                raise unavailable() from error
            raise

    async def is_there(self) -> bool:
        """Check that Postgres responds, and its schema, without which it is there as well. Concurrent callers share one
        check."""
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._probe())
        return await asyncio.shield(self._check)

    def show_threads(self, metrics: ProcessMetrics, *, pool: str) -> None:
        """Report the use of the threads under this name."""
        metrics.show(process_metrics.THREADS, lambda: self._threads.size, value=pool)
        metrics.show(process_metrics.THREADS_BUSY, self._threads.count_busy, value=pool)
        metrics.show(process_metrics.THREADS_AWAITED, self._threads.count_waiting, value=pool)

    def end_waiting(self) -> None:
        """Reject the reads and writes that wait for a thread; those that have begun go on."""
        self._threads.end_waiting()

    def close(self) -> None:
        """Release threads and connections without waiting for running work."""
        self._threads.close()
        self._engine.dispose()

    async def _probe(self) -> bool:
        try:
            revision = await self.read(read_revision, source=RELAY, seconds=CHECK_TIMEOUT_SECONDS)
        except Unavailable:
            return False
        except SQLAlchemyError as error:  # It responds, even if the user may not read the revision.
            trouble = diagnose(error)
        else:
            trouble = " ".join(describe_mismatch(revision, upgrade="alembic upgrade head") or ())
        if trouble and trouble != self.schema_trouble:
            logger.error("%s", trouble)
        self.schema_trouble = trouble
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
        """Log why Postgres is unavailable, and when it is available again."""
        if cause:
            logger.error("Reads are rejected. %s", cause)
        elif self._cause:
            logger.warning("Postgres is available again.")
        self._cause = cause

    def _transact(self, work: Callable[[Connection], T], one_state: bool, seconds: float | None) -> T:
        engine = self._engine.execution_options(isolation_level="REPEATABLE READ") if one_state else self._engine
        with engine.begin() as connection, nullcontext() if seconds is None else time_limit(connection, seconds):
            return work(connection)


def claim_threads(settings: Settings) -> int:
    """Return the number of threads for claims in one process."""
    return settings.part_of(CLAIM_THREADS)
