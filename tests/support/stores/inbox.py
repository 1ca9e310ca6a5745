"""Filling the inbox like the relay, and draining it in this process."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import msgspec
from redis import Redis
from sqlalchemy import Engine

from models.commands.payloads import parse_envelope
from models.queue.inbox import SHARDS, Entry, make_entry, receipt_of, shard_of
from relay.ingest.pusher import COMMON_KEYS, PUSH_SCRIPT, push_arguments
from worker.drain import Drain

_numbers = itertools.count(1)


def entry(command: str, session_id: str | None, /, **data: Any) -> Entry:
    """Return an entry as the relay makes it. `delivery_id`, `source`, `waits` and `resolution` are not data."""
    given = {name: data.pop(name) for name in ("delivery_id", "source", "waits", "resolution") if name in data}
    body = {"command": command, "session_id": session_id, "data": data}
    origin: dict[str, Any] = {
        "source": "tests",
        "delivery_id": f"delivery-{next(_numbers)}-{datetime.now(UTC).timestamp()}",
        "accepted_at": datetime.now(UTC),
        "scopes": ["admin"],
    }
    return make_entry(parse_envelope(msgspec.json.encode(body)), **origin | given)


def push(redis: Redis, *entries: Entry) -> list[str]:
    """Push entries. Returns the result of each."""
    pushes = [push_arguments(item, receipt_of(item)) for item in entries]
    keys = [*COMMON_KEYS, *(key for keys, _ in pushes for key in keys)]
    arguments = [argument for _, arguments in pushes for argument in arguments]
    receipts, _ = redis.eval(PUSH_SCRIPT, len(keys), *keys, *arguments)
    return [(receipt if isinstance(receipt, bytes) else receipt[0]).decode() for receipt in receipts]


def drain(redis: Redis, engine: Engine, *entries: Entry) -> list[str]:
    """Push entries, if any, and drain their shards, or all. Returns the descriptions of the jobs."""
    if entries:
        push(redis, *entries)
    shards = sorted({shard_of(item.session_id) for item in entries}) or range(SHARDS)
    return [Drain(redis, engine).run([shard]) for shard in shards]
