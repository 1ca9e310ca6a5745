"""The schema revision of a database, compared with the one that this program needs."""

from __future__ import annotations

from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from models.tables import SCHEMA_REVISION


def read_revision(connection: Connection) -> str | None:
    """Return the revision, or None for a database without our tables. The transaction may be spoilt afterwards."""
    try:
        revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    except ProgrammingError:
        return None
    return revision


def describe_mismatch(revision: str | None, *, upgrade: str) -> tuple[str, str] | None:
    """Say what is wrong with a revision and what to do about it, where `upgrade` names the command that migrates; None
    if it is the right one."""
    if revision == SCHEMA_REVISION:
        return None
    if revision is None:
        return f"The database has no tables of this program, which needs schema {SCHEMA_REVISION}.", f"Run `{upgrade}`."
    found = f"The database has schema {revision}, and this program needs schema {SCHEMA_REVISION}."
    if revision > SCHEMA_REVISION:
        return found, "Update this program: a newer version has used the database."
    return found, f"Run `{upgrade}`."
