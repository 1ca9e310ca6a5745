"""Advisory locks in Postgres, acquired in this order: the shard first, its event log last."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, func, select, text

SHARD_LOCK = 7_305_002
"""First key; the shard is the second. The holder has exclusive write access to the shard's sessions."""
JOURNAL_LOCK = 7_305_003
"""First key; the shard is the second. Serializes commits of events, so that they become visible in the order of ids."""

_TRY_SHARDS = text("SELECT shard FROM unnest(:shards) AS shard WHERE pg_try_advisory_xact_lock(:key, shard)")


def try_shards(connection: Connection, shards: Sequence[int]) -> list[int]:
    """Try to lock shards until the transaction ends; returns those that could be locked."""
    return list(connection.scalars(_TRY_SHARDS, {"key": SHARD_LOCK, "shards": list(shards)}))


def lock_shard(connection: Connection, shard: int) -> None:
    """Lock the shard until the transaction ends. Waits up to the lock timeout."""
    connection.execute(select(func.pg_advisory_xact_lock(SHARD_LOCK, shard)))


def event_log_locks(shards: Sequence[int]) -> str:
    """Return the statement that locks the event logs of shards, in ascending order, until the transaction ends."""
    numbers = ", ".join(f"{shard:d}" for shard in sorted(shards))
    lock = f"pg_advisory_xact_lock({JOURNAL_LOCK}, shard)"
    return f"SELECT count({lock}) FROM unnest(ARRAY[{numbers}]) AS shard"  # noqa: S608 - numbers of shards
