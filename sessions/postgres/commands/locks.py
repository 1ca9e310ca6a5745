"""Advisory locks in Postgres, acquired in this order: the shard first, its event log last."""

from __future__ import annotations

from sqlalchemy import Connection, func, select, text

SHARD_LOCK = 7_305_002
"""First key; the shard is the second. The holder has exclusive write access to the shard's sessions."""
JOURNAL_LOCK = 7_305_003
"""First key; the shard is the second. Serializes commits of events, so that they become visible in the order of ids."""

_TRY_SHARD = text("SELECT pg_try_advisory_xact_lock(:key, :shard)")


def try_shard(connection: Connection, shard: int) -> bool:
    """Try to lock the shard until the transaction ends; returns whether it succeeded."""
    return bool(connection.scalar(_TRY_SHARD, {"key": SHARD_LOCK, "shard": shard}))


def lock_shard(connection: Connection, shard: int) -> None:
    """Lock the shard until the transaction ends. Waits up to the lock timeout."""
    connection.execute(select(func.pg_advisory_xact_lock(SHARD_LOCK, shard)))


def event_log_lock(shard: int) -> str:
    """Return the statement that locks the shard's event log until the transaction ends."""
    return f"SELECT pg_advisory_xact_lock({JOURNAL_LOCK}, {shard:d})"
