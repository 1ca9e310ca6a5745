"""The job of every peer: writes the rows of a webhook in one transaction, on a connection that the thread keeps."""

from __future__ import annotations

import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import psycopg2

from bench.speed.sample_rows import TABLES, Sample
from bench.speed.webhook import SESSIONS

SAMPLE_FILE = "BENCH_SAMPLE"
"""The variable with the path of the sample."""
_local = threading.local()


def apply(body: str) -> None:
    """Apply a webhook: its rows, and the last activity of its session. Repeated, it only adds another passage."""
    delivery_id = str(msgspec.json.decode(body)["id"])
    number = int(delivery_id.rpartition("-")[2])
    rows = _sample().copy(delivery_id, number)
    parameters = [msgspec.json.encode(rows[name]).decode() for name in TABLES]
    connection = _connection()
    with connection, connection.cursor() as cursor:
        cursor.execute(_statement(), (*parameters, f"bench-{number % SESSIONS}"))


@cache
def _sample() -> Sample:
    return msgspec.json.decode(Path(os.environ[SAMPLE_FILE]).read_bytes(), type=Sample)


@cache
def _statement() -> str:
    """Return all statements as one, which costs one round trip."""
    inserts = _sample().statement(many=False).replace("; ", " ON CONFLICT DO NOTHING; ")
    return (
        f"{inserts} ON CONFLICT DO NOTHING; UPDATE sessions SET last_activity_at = statement_timestamp()"  # noqa: S608
        " WHERE session_id = %s"
    )


def _connection() -> Any:
    if not hasattr(_local, "connection"):
        _local.connection = psycopg2.connect(os.environ["DATABASE_URL"])
    return _local.connection
