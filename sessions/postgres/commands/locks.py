"""Advisory locks in Postgres: their classes, and the order in which they are taken: shard first, journal last."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

SHARD_LOCK = 7_305_002
"""Class; with the shard's number as second key. Who holds it alone changes the shard's sessions."""
JOURNAL_LOCK = 7_305_003
"""Class; with the shard's number as second key. Keeps the order in which entries of journals become visible."""


def try_shard(connection: Connection, shard: int) -> bool:
    """Take the shard until the transaction ends, if nobody has it."""
    return bool(connection.scalar(select(func.pg_try_advisory_xact_lock(SHARD_LOCK, shard))))


def take_shard(connection: Connection, shard: int) -> None:
    """Take the shard until the transaction ends; waits as long as for any other lock."""
    connection.execute(select(func.pg_advisory_xact_lock(SHARD_LOCK, shard)))


def take_journal(connection: Connection, shard: int) -> None:
    """Take the shard's journal until the transaction ends."""
    connection.execute(select(func.pg_advisory_xact_lock(JOURNAL_LOCK, shard)))
