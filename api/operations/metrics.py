"""`GET /metrics`: the counts and the state of all processes, for Prometheus. Works while Postgres or Redis is away.

A scrape costs the servers a few small reads, at most once in OBSERVED_SECONDS for each process. Its form is left to
`metric_families`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from redis.asyncio import Redis
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.database import RELAY, Database
from api.deferred import Deferred
from api.operations.metric_snapshot import ChooseFormat, Snapshot, Tallies
from api.operations.status_probe import PROBE_SECONDS, probe_postgres, probe_redis
from models.errors import Unavailable
from models.queue.metrics import COUNTS_KEY, PROCESSES_KEY
from relay.auth.access_control import AccessControl
from relay.http.query_parameters import NoParameters, decode_parameters
from relay.http.routing import route
from relay.process_metrics import ProcessMetrics, read_states
from relay.redis_client import REDIS_ERRORS
from relay.rejections import COUNTS_KEY as REFUSALS_KEY
from sessions.postgres.tasks.leases import count_leases

OBSERVED_SECONDS = 3.0
"""Further scrapes within that time get the same numbers, so that they cannot load the servers."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


class _Observed(NamedTuple):
    """A snapshot, and its encoded forms by media type."""

    snapshot: Snapshot
    texts: dict[str, bytes]


class Metrics:
    """The endpoint."""

    def __init__(
        self,
        *,
        access: AccessControl,
        database: Database,
        redis: Redis,
        process: ProcessMetrics,
        refusal: Callable[[], str | None],
        max_backlog: int,
    ) -> None:
        """`refusal` returns the reason why webhooks are rejected, or None."""
        self._access = access
        self._database = database
        self._redis = redis
        self._process = process
        self._refusal = refusal
        self._max_backlog = max_backlog
        self._choose_format = Deferred(_import_formats)
        self._observing: asyncio.Task[_Observed] | None = None
        self._fresh_until = 0.0

    @property
    def routes(self) -> list[Route]:
        """The route for Prometheus."""
        return [route("metrics", self.scrape)]

    async def scrape(self, request: Request) -> Response:
        """Return all metrics, in the text format of Prometheus or of OpenMetrics, whichever the client accepts."""
        await self._access.authorize_scraper(request)
        decode_parameters(request.query_params, NoParameters)
        choose_format = await self._choose_format.get()
        encode, media_type = choose_format(request.headers.get("accept", ""))
        observed = await self._observe()
        if media_type not in observed.texts:  # Encoding takes some milliseconds.
            observed.texts[media_type] = encode(observed.snapshot)
        headers = {"content-type": media_type, "cache-control": "no-store"}
        return Response(observed.texts[media_type], headers=headers)

    async def _observe(self) -> _Observed:
        """Return a snapshot that is at most OBSERVED_SECONDS old. Concurrent callers share one."""
        if self._observing is None or (self._observing.done() and time.monotonic() >= self._fresh_until):
            self._observing = asyncio.create_task(self._take_snapshot())
        return await asyncio.shield(self._observing)

    async def _take_snapshot(self) -> _Observed:
        redis, tallies, postgres, postgres_up, leases = await asyncio.gather(
            probe_redis(self._redis, self._max_backlog),
            _or_none(self._read_tallies()),
            _or_none(probe_postgres(self._database)),
            self._database.is_there(),
            _or_none(self._database.read(count_leases, source=RELAY, seconds=PROBE_SECONDS)),
        )
        self._fresh_until = time.monotonic() + OBSERVED_SECONDS
        snapshot = Snapshot(
            accepting=self._refusal() is None,
            redis=redis["redis"],
            inbox=redis["inbox"],
            workers=redis["workers"],
            tallies=tallies,
            postgres_up=postgres_up,
            postgres=postgres if postgres and postgres["state"] == "ok" else None,
            leases=leases,
        )
        return _Observed(snapshot, {})

    async def _read_tallies(self) -> Tallies:
        """Read what all processes have counted, after adding the counts of this one."""
        async with asyncio.timeout(PROBE_SECONDS):
            await self._process.report()
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hgetall(COUNTS_KEY)
                pipeline.hgetall(REFUSALS_KEY)
                pipeline.hgetall(PROCESSES_KEY)
                counts, refusals, reports = await pipeline.execute()
        return Tallies(counts=_numbers(counts), refusals=_numbers(refusals), states=read_states(reports))


async def _or_none(work: Awaitable[T]) -> T | None:
    """Return what a server answers, or None without an answer: the others' numbers are shown all the same."""
    try:
        return await work
    except (Unavailable, TimeoutError, *REDIS_ERRORS):
        return None
    except SQLAlchemyError as error:  # Tables of another version, or without permission.
        logger.warning("Some metrics cannot be read from Postgres (%s).", type(error).__name__)
        return None


def _numbers(answer: dict[bytes, bytes]) -> dict[str, int]:
    return {field.decode(): int(number) for field, number in answer.items()}


def _import_formats() -> ChooseFormat:
    from api.operations.metric_families import choose_format

    return choose_format
