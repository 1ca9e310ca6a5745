"""Retention: deletes the records of decided deliveries after DELIVERY_RETENTION_DAYS, and keeps dead letters until
somebody replays or discards them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import cast

import msgspec
from redis import Redis
from sqlalchemy import Engine, delete, select, tuple_

from models.queue.inbox import ENTRY_FIELD, SHARDS, Entry, inbox_key
from models.tables import DELIVERIES

PRUNE_EVERY_SECONDS = 60.0
PRUNE_SECONDS = 1.0
"""Longest pruning in one turn; the next turn continues. 2,000,000 rows must not cost the sweeper its leadership."""
PRUNED_AT_ONCE = 5_000


class Retention:
    """The pruning of one sweeper, in turns."""

    def __init__(self, redis: Redis, engine: Engine, *, days: int) -> None:
        self._redis = redis
        self._engine = engine
        self._age = timedelta(days=days)
        self._due_at = 0.0

    def is_due(self) -> bool:
        """Whether it is time to prune: each minute, or at once if the last turn left rows."""
        return time.monotonic() >= self._due_at

    def prune(self) -> None:
        """Prune for PRUNE_SECONDS. A delivery stays while an older one waits, which could be a repetition of it."""
        ends_at = time.monotonic() + PRUNE_SECONDS
        before = min(datetime.now(UTC) - self._age, oldest_waiting(self._redis) or datetime.now(UTC))
        while prune_deliveries(self._engine, before) == PRUNED_AT_ONCE:
            if time.monotonic() >= ends_at:
                return
        self._due_at = time.monotonic() + PRUNE_EVERY_SECONDS


def oldest_waiting(redis: Redis) -> datetime | None:
    """Returns when the oldest entry of all inboxes was accepted, or None."""
    oldest: list[datetime] = []
    for shard in range(SHARDS):
        rows = cast("list[tuple[bytes, dict[bytes, bytes]]]", redis.xrange(inbox_key(shard), count=1))
        oldest += [msgspec.json.decode(fields[ENTRY_FIELD], type=Entry).accepted_at for _, fields in rows]
    return min(oldest, default=None)


def prune_deliveries(engine: Engine, before: datetime) -> int:
    """Delete up to PRUNED_AT_ONCE deliveries decided before `before`, except dead letters; returns their number."""
    old = (
        select(DELIVERIES.c.source, DELIVERIES.c.delivery_id)
        .where(DELIVERIES.c.decided_at < before, DELIVERIES.c.status != "failed")
        .limit(PRUNED_AT_ONCE)
    )
    with engine.begin() as connection:
        result = connection.execute(
            delete(DELIVERIES).where(tuple_(DELIVERIES.c.source, DELIVERIES.c.delivery_id).in_(old))
        )
    return int(result.rowcount)
