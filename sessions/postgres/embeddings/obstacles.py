"""Obstacles that keep a database from having vectors, each with its remedy."""

from __future__ import annotations

import re
from typing import Literal

from sqlalchemy import Connection

OLDEST_VERSION = "0.8"
"""It goes on reading its index until enough vectors fulfil the conditions of a search."""

Obstacle = Literal["extension", "version", "privilege"]
_TEXTS: dict[Obstacle, str] = {
    "extension": "Postgres has no pgvector: install its package, such as postgresql-17-pgvector, or use an image with"
    " it, such as pgvector/pgvector:pg17.",
    "version": "Postgres has a pgvector older than 0.8: upgrade its package, and run `ALTER EXTENSION vector UPDATE`.",
    "privilege": "The user of DATABASE_URL may not create pgvector: run `CREATE EXTENSION vector` in this database as"
    " its owner.",
}


def find_obstacle(connection: Connection) -> Obstacle | None:
    """Return what keeps this user from making the table, or None."""
    installed, available, may_create = connection.exec_driver_sql(
        "SELECT (SELECT extversion FROM pg_extension WHERE extname = 'vector'),"
        " (SELECT default_version FROM pg_available_extensions WHERE name = 'vector'),"
        " has_database_privilege(current_database(), 'CREATE')"
    ).one()
    version = installed or available
    if version is None:
        return "extension"
    if _parts(version) < _parts(OLDEST_VERSION):
        return "version"
    return None if installed or may_create else "privilege"


def _parts(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"[0-9]+", version)]


def describe_obstacle(obstacle: Obstacle) -> str:
    """Return the obstacle and the remedy."""
    return _TEXTS[obstacle]
