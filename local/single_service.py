"""Runs the relay, a worker and the dashboard as one service on given servers: `python -m local.single_service`.

For small installations, on which three services would cost more than they do. Migrations run before it, as before the
separate services, and logs go to stderr. The stack of `make up` has servers of its own; see local.stack.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time

from models.process.missing_packages import explained_if_missing

with explained_if_missing():
    from models.errors import SettingsError
    from models.process.log_setup import configure_logging
    from models.process.parent_death import exit_with_parent
    from models.process.program import python_command
    from models.process.supervision import Child, Supervisor, UnexpectedExit
    from models.queue.redis_options import check_redis_url
    from models.settings import Settings, read_settings, sqlalchemy_url

TEND_SECONDS = 0.1
STOP_SECONDS = 30.0
"""The limit for each process, of which the relay is the first: senders that wait get what the worker still applies."""
SMALL = {"RELAY_PROCESSES": "1", "WORKERS": "1"}
"""Defaults for a service that is small, whatever the machine under it has."""
CANNOT_START = (2, 3)
"""The exit codes of processes that would fail again: invalid settings, and a port in use."""

logger = logging.getLogger("service")


def main() -> int:
    """Run until SIGTERM or SIGINT. Returns 2 or 3 if a process cannot start: for invalid settings or a port in use."""
    exit_with_parent()
    environment = {**SMALL, **{name: value for name, value in os.environ.items() if value or name == "HOST"}}
    try:
        settings = read_settings(environment)
        configure_logging(settings)
        sqlalchemy_url(settings.database_url)
        check_redis_url(settings.redis_url)
    except SettingsError as error:
        print(f"session-relay: {error.message}", file=sys.stderr)
        return 2
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: signals.append(received))
    hopeless: list[int] = []

    def report(death: UnexpectedExit) -> None:
        if death.exit_code in CANNOT_START:
            hopeless.append(death.exit_code)
            logger.error("The %s cannot start; stopping the service.", death.child.name)
        else:
            logger.error(
                "The %s %s; restarting it in %.1f s.", death.child.name, death.reason, death.restart_in_seconds
            )

    supervisor = Supervisor(on_death=report)
    for name, module in _processes(settings).items():
        command = python_command(module)
        supervisor.start(Child(name=name, command=command, environment=environment, stop_timeout_seconds=STOP_SECONDS))
    while not signals and not hopeless:
        supervisor.tend()
        time.sleep(TEND_SECONDS)
    supervisor.stop(hurry=lambda: len(signals) > 1)
    return hopeless[0] if hopeless else 0


def _processes(settings: Settings) -> dict[str, str]:
    """Return each process with its module, in the order of their starts; they stop in reverse."""
    processes = {"worker": "worker", "relay": "api"}
    if settings.dashboard_password:
        return {"dashboard": "worker.dashboard", **processes}
    logger.info("DASHBOARD_PASSWORD is not set: running without the dashboard.")
    return processes


if __name__ == "__main__":
    sys.exit(main())
