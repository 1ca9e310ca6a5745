"""Runs WORKERS worker processes, a sweeper and an embedder, and restarts each when it dies."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable

from models.errors import SettingsError
from models.process.gc_tuning import collect_seldom
from models.process.log_setup import configure_logging, write_counts
from models.process.parent_death import ParentWatch
from models.process.program import python_command
from models.process.supervision import Child, Supervisor, UnexpectedExit
from models.process.tracing import check_tracing
from models.queue.redis_options import check_redis_url
from models.settings import read_settings
from sessions.embeddings.configured import configured_encoder
from sessions.postgres.connections import create_engine
from worker import embedder, sweeper, worker_process
from worker.health import EMBEDDER, HealthFolder

TEND_SECONDS = 0.1
STOP_SECONDS = 20.0
"""A running drain is finished first: 5 s and its last statement."""
FORKS = sys.platform == "linux"
"""Whether children are copies of this process: some libraries of macOS fail in copies."""

logger = logging.getLogger("worker")


def main() -> int:
    """Run until SIGTERM or SIGINT, then let every process finish its job. Returns 2 for invalid settings."""
    parent = ParentWatch()
    try:
        settings = read_settings()
        configure_logging(settings)
        engine = create_engine(settings, application_name="session-relay supervisor", pool_size=1)
        check_redis_url(settings.redis_url)
        check_tracing(settings)
        health = HealthFolder(settings.health_dir)
    except SettingsError as error:
        print(f"session-relay: {error.message}", file=sys.stderr)
        return 2
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: signals.append(received))

    def is_stopping() -> bool:
        return bool(signals) or parent.has_ended()

    # One process waits and logs why, instead of each of them.
    worker_process.wait_for_schema(engine, is_stopping=is_stopping)
    engine.dispose()
    if is_stopping():
        return 0
    collect_seldom()  # The children share all memory in which nothing changes.
    supervisor = Supervisor(on_death=_report)
    children = [
        _child(f"worker-{count}", worker_process.main, module="worker.worker_process")
        for count in range(1, settings.workers + 1)
    ]
    children.append(_child("sweeper", sweeper.main, module="worker.sweeper"))
    embeds = configured_encoder(settings) is not None
    if embeds:
        children.append(_child(EMBEDDER, embedder.main, module="worker.embedder"))
    for child in children:
        supervisor.start(child)
    everyone = (
        "%d workers, a sweeper and an embedder are running." if embeds else "%d workers and a sweeper are running."
    )
    logger.info(everyone, settings.workers)
    while not is_stopping():
        supervisor.tend()
        health.update({child.name: supervisor.pid(child.name) for child in children})
        write_counts()
        time.sleep(TEND_SECONDS)
    supervisor.stop(together=True, hurry=lambda: len(signals) > 1)
    return 0


def _child(name: str, work: Callable[[], None], *, module: str) -> Child:
    if FORKS:
        return Child(name=name, work=work, stop_timeout_seconds=STOP_SECONDS)
    command = python_command(module)
    return Child(name=name, command=command, environment=os.environ, stop_timeout_seconds=STOP_SECONDS)


def _report(death: UnexpectedExit) -> None:
    logger.error("%s %s; restarting it in %.1f s.", death.child.name, death.reason, death.restart_in_seconds)
