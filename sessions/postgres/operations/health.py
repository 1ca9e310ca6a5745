"""Health of a database: its durability settings, schema revision, dead letters and parked events."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, text

from sessions.postgres.embeddings.search_health import SearchHealth, check_search
from sessions.postgres.operations.schema_revision import read_revision, state_of

SETTINGS = text(
    "SELECT current_setting('server_version') AS version, current_setting('fsync') AS fsync,"
    " current_setting('synchronous_commit') AS synchronous_commit"
)
FAILED = text("SELECT count(*) FROM deliveries WHERE status = 'failed'")
PARKED = text("SELECT count(*) FROM deliveries WHERE status = 'parked'")
"""Both conditions match partial indexes."""


class DatabaseHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a health check."""

    version: str
    fsync: str
    synchronous_commit: str
    revision: str | None
    """None if the product's tables do not exist."""
    dead_letters: int
    parked_events: int
    search: SearchHealth | None
    """None unless the schema is the current one."""

    @property
    def weakness(self) -> str | None:
        """The settings with which a crash can lose committed data, or None."""
        given = {"fsync": self.fsync, "synchronous_commit": self.synchronous_commit}
        off = [name for name, value in given.items() if value == "off"]
        return f"{' and '.join(off)} off" if off else None


def check_health(connection: Connection) -> DatabaseHealth:
    """Check a database of any schema revision, also without tables."""
    found = connection.execute(SETTINGS).one()
    revision = read_revision(connection)
    return DatabaseHealth(
        version=found.version,
        fsync=found.fsync,
        synchronous_commit=found.synchronous_commit,
        revision=revision,
        dead_letters=(connection.scalar(FAILED) or 0) if revision else 0,
        parked_events=(connection.scalar(PARKED) or 0) if revision else 0,
        search=check_search(connection) if state_of(revision) == "current" else None,
    )
