"""One worker process: an RQ worker on the one queue, which runs allowed jobs only."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable

from redis import Redis
from rq import Queue, SimpleWorker
from rq.exceptions import InvalidJobOperation
from rq.executions import Execution
from rq.job import Job
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from models.process.gc_tuning import collect_seldom
from models.process.log_setup import configure_logging
from models.process.parent_death import exit_with_parent
from models.queue.job_queue import ALLOWED_JOBS, QUEUE
from models.queue.redis_options import REDIS_OPTIONS
from models.settings import Settings, read_settings
from sessions.postgres.connections import diagnose
from sessions.postgres.operations.schema_revision import describe_mismatch, read_revision
from worker import jobs

logger = logging.getLogger(__name__)

SCHEMA_POLL_SECONDS = 1.0


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

    def handle_job_success(
        self, job: Job, queue: Queue, started_job_registry: StartedJobRegistry, execution: Execution
    ) -> None:
        """Record a job's success. If its keys were deleted meanwhile, only clean up: RQ would treat the finished job as
        failed."""
        try:
            super().handle_job_success(job, queue, started_job_registry, execution)
        except InvalidJobOperation:
            with self.connection.pipeline() as pipeline:
                self.cleanup_execution(job, pipeline, execution)
                pipeline.execute()


def main() -> None:
    """Work until stopped. The supervisor starts several."""
    exit_with_parent()
    settings = read_settings()
    configure_logging(settings)
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    wait_for_schema(jobs.prepare(settings).engine)
    collect_seldom()
    run(settings)


def run(settings: Settings) -> None:
    """Run the work loop."""
    connection = Redis.from_url(settings.redis_url, **REDIS_OPTIONS)
    worker = AllowedJobsWorker([QUEUE], connection=connection, serializer=JSONSerializer, log_job_description=False)
    worker.work(logging_level="WARNING", with_scheduler=False)


def wait_for_schema(engine: Engine, *, is_stopping: Callable[[], bool] = lambda: False) -> None:
    """Wait until the database is migrated, or the process is stopping: with other tables every entry would look like
    poison. Logs each cause once."""
    logged = ""
    while not is_stopping() and (trouble := _find_schema_trouble(engine)) is not None:
        if trouble != logged:
            logger.error("Waiting for the database: %s", trouble)
            logged = trouble
        time.sleep(SCHEMA_POLL_SECONDS)
    if logged and not is_stopping():
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
