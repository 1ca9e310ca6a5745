"""The functions of RQ jobs. They never fail: only dead letters are shown as failed jobs."""

from __future__ import annotations

import logging

from redis import Redis
from redis.exceptions import RedisError
from rq import get_current_job
from sqlalchemy import Engine

from models.queue.job_queue import name_shards
from models.queue.redis_options import REDIS_OPTIONS
from models.settings import Settings
from sessions.postgres.connections import create_engine
from worker.dead_letters import replay as replay_dead_letter
from worker.drain import Drain

logger = logging.getLogger(__name__)


class Runtime:
    """A worker process' connections for its jobs. RQ calls jobs by name, so each process has one: `runtime`."""

    def __init__(self, settings: Settings) -> None:
        self.redis = Redis.from_url(settings.redis_url, **REDIS_OPTIONS)
        self.engine: Engine = create_engine(settings, application_name="session-relay worker", pool_size=1)
        self.drain = Drain(self.redis, self.engine, failpoint_dir=settings.failpoint_dir)


runtime: Runtime | None = None


def prepare(settings: Settings) -> Runtime:
    """Set up this process for its jobs. Call it once, before the first."""
    global runtime  # noqa: PLW0603
    runtime = Runtime(settings)
    return runtime


def drain(*shards: int) -> None:
    """Drain shards. May be repeated, and run concurrently."""
    name = name_shards(shards)
    try:
        _report(_runtime().drain.run(shards))
    except RedisError as error:
        logger.warning("Redis failed during the drain of %s (%s); it will be retried.", name, error)
    except Exception:  # All or nothing was committed; the entries are applied again.
        logger.exception("The drain of %s broke off; it will be retried.", name)
        _runtime().engine.dispose()
        _report(f"drain {name}: broke off, see the worker's log")


def replay(source: str, delivery_id: str) -> None:
    """Replay one dead letter. May be repeated."""
    try:
        with _runtime().engine.connect() as connection:
            known = replay_dead_letter(_runtime().redis, connection, source=source, delivery_id=delivery_id)
        _report(f"replay {delivery_id} of {source}: " + ("pushed" if known else "not a dead letter any more"))
    except Exception:
        logger.exception("Delivery %s of %s could not be replayed; it stays a dead letter.", delivery_id, source)


def _runtime() -> Runtime:
    if runtime is None:
        raise RuntimeError("The worker process was not prepared.")
    return runtime


def _report(description: str) -> None:
    """Show the job's summary in the dashboard."""
    logger.info("%s", description)
    if job := get_current_job():
        job.description = description
