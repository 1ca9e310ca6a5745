"""The schema revision of a database, compared with the one that this program needs."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import Connection, text

from models.tables import SCHEMA_REVISION

State = Literal["current", "behind", "empty", "ahead"]

HAS_TABLES = text("SELECT to_regclass('alembic_version') IS NOT NULL")
REVISION = text("SELECT version_num FROM alembic_version")


def read_revision(connection: Connection) -> str | None:
    """Return the revision, or None if the product's tables do not exist. Raises ProgrammingError if the user may not
    read them."""
    if not connection.scalar(HAS_TABLES):
        return None
    revision: str | None = connection.scalar(REVISION)
    return revision


def state_of(revision: str | None) -> State:
    """Compare a revision with the one that this program needs."""
    if revision is None:
        return "empty"
    if revision == SCHEMA_REVISION:
        return "current"
    return "behind" if revision < SCHEMA_REVISION else "ahead"


def describe_mismatch(revision: str | None, *, upgrade: str) -> tuple[str, str] | None:
    """Return the problem with a revision and the remedy, or None for the current one. `upgrade` is the migration
    command."""
    found = f"The database has schema {revision}, but this program needs schema {SCHEMA_REVISION}."
    match state_of(revision):
        case "current":
            return None
        case "empty":
            found = f"The database does not have the tables of this program, which needs schema {SCHEMA_REVISION}."
        case "ahead":
            return found, "Update this program: a newer version has migrated the database."
    return found, f"Run `{upgrade}`."
