"""What keeps a database from having vectors, and the remedy."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import Connection

Obstacle = Literal["extension", "privilege"]
_TEXTS: dict[Obstacle, str] = {
    "extension": "Postgres has no pgvector: install its package, such as postgresql-17-pgvector, or use an image with"
    " it, such as pgvector/pgvector:pg17.",
    "privilege": "The user of DATABASE_URL may not create pgvector: run `CREATE EXTENSION vector` in this database as"
    " its owner.",
}


def find_obstacle(connection: Connection) -> Obstacle | None:
    """Return what keeps this user from making the table, or None."""
    installed, available, may_create = connection.exec_driver_sql(
        "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'vector'),"
        " EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector'),"
        " has_database_privilege(current_database(), 'CREATE')"
    ).one()
    if installed or (available and may_create):
        return None
    return "privilege" if available else "extension"


def describe_obstacle(obstacle: Obstacle) -> str:
    """Return the obstacle and the remedy."""
    return _TEXTS[obstacle]
