"""Migrates a database to this version's schema, and compares it with that."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Literal

import msgspec
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import ProgrammingError

from local.operator.postgres_tools import TargetDatabase
from models.errors import RelayError
from models.process.program import PROJECT
from models.tables import SCHEMA_REVISION
from sessions.postgres.operations import schema_revision

TAIL_LINES = 6

State = schema_revision.State | Literal["differs"]


class MigrationFailed(RelayError):
    """The migrations failed."""

    code = "migration_failed"


class SchemaReport(msgspec.Struct, frozen=True, kw_only=True):
    """A database's schema compared with the required one."""

    database: str
    state: State
    revision: str | None
    needed: str
    differences: str = ""
    """Differences despite the expected revision, as alembic reports them."""


def upgrade(database: TargetDatabase) -> None:
    """Migrate to this version. Safe to repeat. Raises MigrationFailed; completed migrations are kept then."""
    done = _alembic(database, "upgrade", "head")
    if done.returncode != 0:
        raise MigrationFailed(hint=_end_of(done))


def read_revision(database: TargetDatabase) -> str | None:
    """Read the schema revision, None for a database without our tables. Raises Unavailable, and psycopg2's error for a
    user who may not read them."""
    engine = create_engine("postgresql+psycopg2://", creator=lambda: database.open("cli"), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return schema_revision.read_revision(connection)
    except ProgrammingError as error:
        raise (error.orig or error) from error


def compare(database: TargetDatabase) -> SchemaReport:
    """Compare the revision and, if it is the required one, every table. Raises Unavailable."""
    revision = read_revision(database)
    state: State = schema_revision.state_of(revision)
    differences = ""
    if state == "current":
        done = _alembic(database, "check")
        if done.returncode != 0:
            state, differences = "differs", _end_of(done)
    return SchemaReport(
        database=database.name, state=state, revision=revision, needed=SCHEMA_REVISION, differences=differences
    )


def _alembic(database: TargetDatabase, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [sys.executable, "-m", "alembic", *arguments],
        cwd=PROJECT,
        env={**os.environ, "DATABASE_URL": database.url},
        capture_output=True,
        text=True,
        check=False,
    )


def _end_of(done: subprocess.CompletedProcess[str]) -> str:
    return "\n".join((done.stderr or done.stdout).strip().splitlines()[-TAIL_LINES:])
