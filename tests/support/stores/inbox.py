"""Filling the inbox as the relay does, and draining it in this process."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import msgspec
from redis import Redis
from sqlalchemy import Engine

from models.commands.payloads import parse_envelope
from models.queue.inbox import PUSH_SCRIPT, SHARDS, Entry, make_entry, push_arguments, shard_of
from worker.drain import Drain

_numbers = itertools.count(1)


def entry(command: str, session_id: str | None, /, **data: Any) -> Entry:
    """An entry as the relay makes it. `delivery_id`, `source`, `waits` and `ruling` are not data."""
    given = {name: data.pop(name) for name in ("delivery_id", "source", "waits", "ruling") if name in data}
    body = {"command": command, "session_id": session_id, "data": data}
    origin: dict[str, Any] = {
        "source": "tests",
        "delivery_id": f"delivery-{next(_numbers)}-{datetime.now(UTC).timestamp()}",
        "accepted_at": datetime.now(UTC),
        "scopes": ["admin"],
    }
    return make_entry(parse_envelope(msgspec.json.encode(body)), **origin | given)


def push(redis: Redis, *entries: Entry) -> list[str]:
    """Push entries; gives what each was taken for."""
    keys, arguments = push_arguments(entries)
    receipts, _ = redis.eval(PUSH_SCRIPT, len(keys), *keys, *arguments)
    return [receipt[0].decode() for receipt in receipts]


def drain(redis: Redis, engine: Engine, *entries: Entry) -> list[str]:
    """Push entries, if any, and drain their shards, or all; gives the descriptions of the jobs."""
    if entries:
        push(redis, *entries)
    shards = sorted({shard_of(item.session_id) for item in entries}) or range(SHARDS)
    return [Drain(redis, engine).run(shard) for shard in shards]
