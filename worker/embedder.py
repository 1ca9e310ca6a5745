"""The embedder: one process, an RQ worker on a queue of its own, that makes the vectors of stored texts.

It has the lowest priority of the operating system, since webhooks must not wait for it.
"""

from __future__ import annotations

import logging
import os
import time
from types import FrameType

from redis import Redis
from rq.serializers import JSONSerializer
from sqlalchemy.exc import SQLAlchemyError

from models.process.log_setup import configure_logging
from models.process.parent_death import exit_with_parent
from models.queue.job_queue import EMBEDDINGS_QUEUE
from models.queue.redis_options import REDIS_OPTIONS
from models.settings import Settings, read_settings
from sessions.embeddings.configured import configured_encoder
from sessions.embeddings.encoder import ModelFailed
from sessions.postgres.connections import create_engine, diagnose
from sessions.postgres.embeddings.embedding import Embedding
from sessions.postgres.embeddings.obstacles import describe_obstacle, find_obstacle
from worker import jobs
from worker.health import Heartbeat
from worker.worker_process import AllowedJobsWorker, new_worker_name, wait_for_schema

logger = logging.getLogger(__name__)

NICENESS = 19
RETRY_SECONDS = 10.0


class EmbeddingWorker(AllowedJobsWorker):
    """An RQ worker whose jobs end soon when it is stopped."""

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Let the current batch be the last."""
        jobs.stopping.set()
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]


def main() -> None:
    """Work until stopped. Started by the supervisor."""
    exit_with_parent()
    os.nice(NICENESS)
    settings = read_settings()
    configure_logging(settings)
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    connection = Redis.from_url(settings.redis_url, **REDIS_OPTIONS)
    health = Heartbeat(settings.health_dir)
    jobs.prepare_embedding(wait_until_possible(settings, health), connection)
    worker = EmbeddingWorker(
        [EMBEDDINGS_QUEUE],
        name=new_worker_name("embedder"),
        connection=connection,
        serializer=JSONSerializer,
        log_job_description=False,
    )
    worker.health = health
    worker.work(logging_level="WARNING", with_scheduler=False)


def wait_until_possible(settings: Settings, health: Heartbeat) -> Embedding:
    """Return the embedding of the database, once it has the table of vectors, and the model answers. Without vectors
    search still works, so waiting is healthy while Postgres answers."""
    encoder = configured_encoder(settings)
    assert encoder is not None, "The supervisor starts no embedder without a model."
    engine = create_engine(settings, application_name="session-relay embedder", pool_size=1)
    wait_for_schema(engine)
    embedding = Embedding(engine, encoder)
    while True:
        trouble = ""
        try:
            with engine.connect() as connection:
                obstacle = find_obstacle(connection)
            health.beat()
            if obstacle is None:
                waiting = embedding.start()
                logger.info("Embedding texts with %s; %d are waiting.", encoder.name, waiting)
                return embedding
            trouble = describe_obstacle(obstacle)
        except ModelFailed as error:
            trouble = str(error)
        except SQLAlchemyError as error:
            trouble = diagnose(error)
        logger.warning("Search uses words alone for now. %s", trouble)
        time.sleep(RETRY_SECONDS)


if __name__ == "__main__":
    main()
