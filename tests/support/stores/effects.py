"""Effects of drained entries: in Postgres, and outcomes for waiting senders."""

from __future__ import annotations

from typing import Any

import msgspec
from redis import Redis
from sqlalchemy import Engine, text

from models.queue.inbox import Entry, outcome_key
from sessions.postgres.operations.deliveries import find_delivery


def delivery(engine: Engine, delivery_id: str) -> dict[str, Any]:
    with engine.connect() as connection:
        found = find_delivery(connection, source="tests", delivery_id=delivery_id)
    assert found is not None
    return found


def status_of(engine: Engine, item: Entry) -> str | None:
    with engine.connect() as connection:
        query = {"id": item.delivery_id}
        row = connection.execute(text("SELECT status FROM deliveries WHERE delivery_id = :id"), query).one_or_none()
    return None if row is None else str(row.status)


def memories(engine: Engine, session_id: str) -> dict[str, int]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT key, revision FROM memories WHERE session_id = :id"), {"id": session_id})
        return {row.key: row.revision for row in rows}


def outcome_of(redis: Redis, item: Entry) -> dict[str, Any]:
    value = redis.get(outcome_key("tests", item.delivery_id, item.hash))
    assert isinstance(value, bytes)
    outcome: dict[str, Any] = msgspec.json.decode(value.partition(b"\n")[2])
    return outcome
