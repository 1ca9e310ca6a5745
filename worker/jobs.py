"""The functions of RQ jobs. They never fail: only dead letters are shown as failed jobs."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from functools import partial
from threading import Event

from redis import Redis
from redis.exceptions import RedisError
from rq import get_current_job
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from models.process.tracing import Tracing, start_tracing
from models.queue.inbox import SHARDS, inbox_key
from models.queue.job_queue import JOBS_MODULE, name_shards
from models.queue.metrics import PASSAGES_EMBEDDED, add_counts
from models.queue.redis_options import REDIS_OPTIONS
from models.settings import Settings
from sessions.embeddings.encoder import ModelFailed
from sessions.postgres.connections import QUESTION_SECONDS, create_engine, diagnose
from sessions.postgres.embeddings.embedding import Embedding
from worker.dead_letters import replay as replay_dead_letter
from worker.drain import Drain

logger = logging.getLogger(__name__)
# RQ imports the functions by this name, also where the module has a longer one.
sys.modules.setdefault(JOBS_MODULE, sys.modules[__name__])

LONGEST_QUESTION_SECONDS = 0.1
"""For the vector of a question in a drain: until the model is loaded, searches use words alone."""


class Runtime:
    """A worker process' connections for its jobs. RQ calls jobs by name, so each process has one: `runtime`."""

    def __init__(self, settings: Settings) -> None:
        self.redis = Redis.from_url(settings.redis_url, **REDIS_OPTIONS)
        engine = create_engine(settings, application_name="session-relay worker", pool_size=1)
        # All senders of a shard wait for its reads.
        self.engine: Engine = engine.execution_options(**{QUESTION_SECONDS: LONGEST_QUESTION_SECONDS})
        self.tracing = start_tracing(settings, process="worker")
        self.drain = _make_drain(self.tracing)(self.redis, self.engine, failpoint_dir=settings.failpoint_dir)


def _make_drain(tracing: Tracing | None) -> Callable[..., Drain]:
    if tracing is None:
        return Drain
    from worker.traces.traced_drain import TracedDrain  # Imports OpenTelemetry.

    return partial(TracedDrain, tracing.tracer)


EMBED_SECONDS = 20.0
EMBED_RETRY_SECONDS = 5.0
BUSY_ENTRIES = 20
"""Waiting entries that mean that the workers are busy."""
BUSY_SHARE, LONGEST_PAUSE_SECONDS = 0.05, 5.0
"""The share of the time in which texts are embedded while the workers are busy."""

runtime: Runtime | None = None
embedding: Embedding | None = None
embedding_redis: Redis | None = None
stopping = Event()
"""Set when the embedder is asked to stop: its job ends after the current batch."""


def prepare(settings: Settings) -> Runtime:
    """Set up this process for its jobs. Call it once, before the first."""
    global runtime  # noqa: PLW0603
    runtime = Runtime(settings)
    return runtime


def prepare_embedding(prepared: Embedding, redis: Redis) -> None:
    """Set up this process for embedding. Call it once, before the first job."""
    global embedding, embedding_redis
    embedding, embedding_redis = prepared, redis


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


def embed() -> None:
    """Embed the texts without vectors, for EMBED_SECONDS. May be repeated, and run concurrently."""
    if embedding is None:
        raise RuntimeError("Only the embedder runs this job.")
    ends_at = time.monotonic() + EMBED_SECONDS
    embedded = 0
    try:
        while (began_at := time.monotonic()) < ends_at and not stopping.is_set():
            made = embedding.embed_batch()
            done = made or embedding.forget_others()
            if not done:
                break
            embedded += done
            if made:
                _count_embedded(made)
            _make_way(time.monotonic() - began_at)
        _report(f"embed texts: {embedded} passages")
    except (ModelFailed, SQLAlchemyError, RedisError) as error:
        cause = diagnose(error) if isinstance(error, SQLAlchemyError) else str(error)
        logger.warning("Texts could not be embedded; it will be retried. %s", cause)
        stopping.wait(EMBED_RETRY_SECONDS)
    except Exception:  # A bug must not show this job among the dead letters.
        logger.exception("Bug: texts could not be embedded; it will be retried.")
        stopping.wait(EMBED_RETRY_SECONDS)


def _count_embedded(passages: int) -> None:
    assert embedding_redis is not None
    add_counts(embedding_redis, {PASSAGES_EMBEDDED.name: passages})


def _make_way(worked_seconds: float) -> None:
    """Pause if webhooks wait: whatever the priority of this process, it takes Postgres' time and the processor's."""
    assert embedding_redis is not None
    with embedding_redis.pipeline(transaction=False) as pipeline:
        for shard in range(SHARDS):
            pipeline.xlen(inbox_key(shard))
        waiting: list[int] = pipeline.execute()
    if sum(waiting) > BUSY_ENTRIES:
        stopping.wait(min(worked_seconds * (1 / BUSY_SHARE - 1), LONGEST_PAUSE_SECONDS))


def _runtime() -> Runtime:
    if runtime is None:
        raise RuntimeError("The worker process was not prepared.")
    return runtime


def _report(description: str) -> None:
    """Show the job's summary in the dashboard."""
    logger.debug("%s", description)
    if job := get_current_job():
        job.description = description
