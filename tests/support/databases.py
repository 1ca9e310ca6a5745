"""Databases for tests, built by the real migrations."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2

from local.servers.embedded import EmbeddedServer
from tests.support.processes.stack import new_id
from tests.support.project import ROOT


def migrate(database_url: str, *arguments: str) -> str:
    """Run alembic as an operator would, by default up to the latest schema; gives its output."""
    command = [sys.executable, "-m", "alembic", *(arguments or ("upgrade", "head"))]
    environment = {**os.environ, "DATABASE_URL": database_url}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@contextmanager
def new_database(postgres: EmbeddedServer) -> Iterator[str]:
    """A migrated database that is dropped in the end."""
    name = new_id("acceptance").replace("-", "_")
    connection = psycopg2.connect(postgres.url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
        url = postgres.url.replace("/postgres?", f"/{name}?")
        migrate(url)
        yield url
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
    connection.close()


def execute(url: str, statement: str) -> None:
    """Execute a statement on a connection of its own, outside of a transaction."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
