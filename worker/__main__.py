"""`python -m worker`: WORKERS worker processes and a sweeper, each restarted when it dies."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time

from models.errors import SettingsError
from models.process.log_setup import configure_logging
from models.process.parent_death import exit_with_parent
from models.queue.redis_options import check_redis_url
from models.settings import read_settings
from sessions.postgres.connections import create_engine
from worker.supervision import Child, Supervisor, UnexpectedExit
from worker.worker_process import wait_for_schema

TEND_SECONDS = 0.1
STOP_SECONDS = 20.0
"""A running drain is finished first: 5 s and its last statement."""

logger = logging.getLogger("worker")


def main() -> int:
    """Run until SIGTERM or SIGINT, then let every process finish its job. Returns 2 for invalid settings."""
    exit_with_parent()
    try:
        settings = read_settings()
        configure_logging(settings)
        engine = create_engine(settings, application_name="session-relay supervisor", pool_size=1)
        check_redis_url(settings.redis_url)
    except SettingsError as error:
        print(f"session-relay: {error.message}", file=sys.stderr)
        return 2
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stopping.append(received))
    # One process waits and logs why, instead of each of them.
    wait_for_schema(engine, is_stopping=lambda: bool(stopping))
    engine.dispose()
    if stopping:
        return 0
    supervisor = Supervisor(on_death=_report)
    modules = {f"worker-{number}": "worker.worker_process" for number in range(1, settings.workers + 1)}
    for name, module in {**modules, "sweeper": "worker.sweeper"}.items():
        command = (sys.executable, "-m", module)
        supervisor.start(Child(name=name, command=command, environment=os.environ, stop_timeout_seconds=STOP_SECONDS))
    logger.info("%d workers and a sweeper are running.", settings.workers)
    while not stopping:
        supervisor.tend()
        time.sleep(TEND_SECONDS)
    supervisor.stop(together=True, hurry=lambda: len(stopping) > 1)
    return 0


def _report(death: UnexpectedExit) -> None:
    logger.error("%s %s; restarting it in %.1f s.", death.child.name, death.reason, death.restart_in_seconds)


if __name__ == "__main__":
    sys.exit(main())
