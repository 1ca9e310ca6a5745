"""One worker process: an RQ worker on the one queue, which runs allowed jobs only."""

from __future__ import annotations

import logging
import os
import platform
import secrets
import signal
import time
from collections.abc import Callable
from types import FrameType

from redis import Redis
from redis.client import Pipeline
from rq import Queue, SimpleWorker
from rq.exceptions import InvalidJobOperation
from rq.executions import Execution
from rq.job import Job
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty
from rq.utils import now as rq_now
from rq.worker import WorkerStatus
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from models.process.gc_tuning import collect_seldom
from models.process.log_setup import configure_logging, write_counts, write_last_lines
from models.process.parent_death import exit_with_parent
from models.queue.job_queue import ALLOWED_JOBS, DRAIN, QUEUE
from models.queue.redis_options import REDIS_OPTIONS
from models.settings import Settings, read_settings
from sessions.postgres.connections import diagnose
from sessions.postgres.operations.schema_revision import describe_mismatch, read_revision
from worker import jobs
from worker.health import Heartbeat

logger = logging.getLogger(__name__)

SCHEMA_POLL_SECONDS = 1.0
HEARTBEAT_SECONDS = 5.0
"""RQ sends several heartbeats for each job, each in two round trips; a worker's registration lasts minutes."""
IDLE_SECONDS = 5
"""The time for which a worker without work waits for a job before it sends its next heartbeat."""


class KillOnTimeout(BaseDeathPenalty):
    """Kills the process of a job that hangs; the supervisor restarts it. RQ's own exception could be raised between any
    two lines, and make the current entry look like poison."""

    def setup_death_penalty(self) -> None:
        """Have the kernel kill this process when the time is up."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(self._timeout)

    def cancel_death_penalty(self) -> None:
        """Cancel the alarm: the job has ended in time."""
        signal.alarm(0)


class AllowedJobsWorker(SimpleWorker):
    """An RQ worker without forks that drops jobs with other functions, callbacks or webhooks."""

    max_connection_wait_time = 2.0  # Seconds between retries while Redis is unavailable; RQ's own limit is a minute.
    death_penalty_class = KillOnTimeout
    _written_state: str | None = None
    _heartbeat_at = -HEARTBEAT_SECONDS
    """The time of the last heartbeat."""
    health = Heartbeat("")
    """Where to record that the last heartbeat has reached Redis."""

    @property
    def dequeue_timeout(self) -> int:
        """RQ waits for minutes, and as long for an answer of a server that hangs."""
        return IDLE_SECONDS

    def register_birth(self) -> None:
        """Register, and note a signal to stop that comes before RQ has its handlers. A worker that it ended between the
        two would seem to run for minutes."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop_before_work)
        super().register_birth()  # type: ignore[no-untyped-call]

    def _stop_before_work(self, number: int, frame: FrameType | None) -> None:
        self._stop_requested = True

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """Run an allowed job; drop any other, which someone else has put into Redis."""
        if _is_allowed(job):
            return super().perform_job(job, queue, execution)
        logger.error("Dropped the job %s: only %s may run here.", job.id, " and ".join(sorted(ALLOWED_JOBS)))
        with self.connection.pipeline() as pipeline:
            pipeline.lrem(queue.intermediate_queue_key, 1, job.id)
            self.cleanup_execution(job, pipeline, execution)
            pipeline.execute()
        job.delete()
        return False

    def prepare_execution(self, job: Job) -> Execution:
        """Register the execution of a job, together with what RQ would write next: all in one message."""
        self._preparation = self.connection.pipeline()
        seconds = self.get_heartbeat_ttl(job)
        execution = Execution.create(job, seconds, pipeline=self._preparation, worker_name=self.name)
        self.executions[execution.id] = execution
        self.set_state(WorkerStatus.BUSY, pipeline=self._preparation)
        return execution

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """Note that the job has been started."""
        with self._preparation as pipeline:
            job.prepare_for_execution(self.name, pipeline=pipeline)
            pipeline.persist(job.key)
            pipeline.lrem(Queue(job.origin, connection=self.connection).intermediate_queue_key, 1, job.id)
            pipeline.execute()

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:
        """Note when the job ended; RQ would also send a heartbeat for it."""
        job.ended_at = rq_now()

    def handle_job_success(
        self, job: Job, queue: Queue, started_job_registry: StartedJobRegistry, execution: Execution
    ) -> None:
        """Record a job's success. A drain has no result and no dependents, which RQ would look for: it is deleted in
        the same transaction. If the keys of another job were deleted meanwhile, only clean up: RQ would treat the
        finished job as failed."""
        with self.connection.pipeline() as pipeline:
            if job.func_name != DRAIN:
                try:
                    super().handle_job_success(job, queue, started_job_registry, execution)
                    return
                except InvalidJobOperation:
                    self.cleanup_execution(job, pipeline, execution)
            else:
                self.increment_successful_job_count(pipeline=pipeline)
                if job.started_at and job.ended_at:
                    self.increment_total_working_time(job.ended_at - job.started_at, pipeline)
                self.cleanup_execution(job, pipeline, execution)
                pipeline.delete(job.key, job.dependents_key, job.dependencies_key, job.execution_registry.key)
            pipeline.execute()

    def set_state(self, state: str, pipeline: Pipeline | None = None) -> None:
        """Write the worker's state for the dashboard, if it has changed."""
        if state != self._written_state:
            super().set_state(state, pipeline)
            self._written_state = state

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Extend the worker's registration, in one round trip, and only if the last time is not a moment ago."""
        if pipeline is not None:
            super().heartbeat(timeout, pipeline)
        elif time.monotonic() - self._heartbeat_at >= HEARTBEAT_SECONDS:
            with self.connection.pipeline(transaction=False) as own:
                super().heartbeat(timeout, own)
                super().set_state(self.get_state(), own)
                own.execute()
            self._heartbeat_at = time.monotonic()
            self.health.beat()
            write_counts()


def main() -> None:
    """Work until stopped. The supervisor starts several."""
    exit_with_parent()
    settings = read_settings()
    configure_logging(settings)
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    runtime = jobs.prepare(settings)
    wait_for_schema(runtime.engine)
    collect_seldom()
    run(settings)
    if runtime.tracing:
        runtime.tracing.stop()
    write_last_lines()


def run(settings: Settings) -> None:
    """Run the work loop."""
    connection = Redis.from_url(settings.redis_url, **REDIS_OPTIONS)
    worker = AllowedJobsWorker(
        [QUEUE],
        name=new_worker_name("worker"),
        connection=connection,
        serializer=JSONSerializer,
        log_job_description=False,
    )
    worker.health = Heartbeat(settings.health_dir)
    worker.work(logging_level="WARNING", with_scheduler=False)


def new_worker_name(kind: str) -> str:
    """Return a name that leads to the process, such as `worker-4711@host-3fa9c2`. Its end is random: in a container
    that was killed and started again, the rest is the same while RQ still knows the killed worker."""
    return f"{kind}-{os.getpid()}@{platform.node()}-{secrets.token_hex(3)}"


def wait_for_schema(engine: Engine, *, is_stopping: Callable[[], bool] = lambda: False) -> None:
    """Wait until the database is migrated, or the process is stopping: with other tables every entry would look like
    poison."""
    has_waited = False
    while not is_stopping() and (trouble := _find_schema_trouble(engine)) is not None:
        logger.error("Waiting for the database: %s", trouble)
        has_waited = True
        time.sleep(SCHEMA_POLL_SECONDS)
    if has_waited and not is_stopping():
        logger.info("The database is ready.")


def _find_schema_trouble(engine: Engine) -> str | None:
    try:
        with engine.connect() as connection:
            mismatch = describe_mismatch(read_revision(connection), upgrade="alembic upgrade head")
    except SQLAlchemyError as error:
        return diagnose(error)
    return " ".join(mismatch) if mismatch else None


def _is_allowed(job: Job) -> bool:
    try:
        callbacks = (job._success_callback_name, job._failure_callback_name, job._stopped_callback_name)
        return job.func_name in ALLOWED_JOBS and not any(callbacks) and not job.webhooks and not job.repeats_left
    except Exception:  # Unreadable data is not from this product.
        return False


if __name__ == "__main__":
    main()
