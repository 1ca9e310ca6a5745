"""Lists deliveries that wait in the inbox. Does not need Postgres."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from models.errors import Unavailable
from models.queue.inbox import ENTRY_FIELD, SHARDS, Entry, inbox_key
from models.timestamps import format_utc
from relay.redis_client import REDIS_ERRORS
from sessions.reads.results import Page

STEP = 10
"""Entries read at a time: they are read whole, and one may be as large as a body."""
MAX_ENTRIES = 200
"""The number of newest entries read per shard."""
MAX_ENTRY_BYTES = 1_048_576
"""Reading a shard stops after this size, so that a large backlog costs little memory."""

Waiting = dict[str, Any]


async def list_waiting(redis: Redis, *, limit: int, matches: Callable[[Entry], bool]) -> Page:
    """List the newest matching entries. `truncated` says that there may be more. Raises Unavailable."""
    found: list[Waiting] = []
    truncated = False
    for shard in range(SHARDS):
        try:
            more, cut = await _read_shard(redis, shard, matches=matches)
        except REDIS_ERRORS as error:
            raise Unavailable("The inbox does not answer at the moment; retry in a few seconds.") from error
        found = sorted(found + more, key=lambda item: str(item["accepted_at"]), reverse=True)
        truncated = truncated or cut or len(found) > limit
        del found[limit:]
    return Page(items=found, truncated=truncated)


async def _read_shard(redis: Redis, shard: int, *, matches: Callable[[Entry], bool]) -> tuple[list[Waiting], bool]:
    """Return the matching ones of a shard's newest entries, and whether older ones were not read."""
    found: list[Waiting] = []
    size, before = 0, "+"
    for _ in range(MAX_ENTRIES // STEP):
        answer = await redis.xrevrange(inbox_key(shard), max=before, count=STEP)
        rows = cast("list[tuple[bytes, dict[bytes, bytes]]]", answer)
        for stream_id, fields in rows:
            body = fields.get(ENTRY_FIELD, b"")
            entry = _decode(body)
            if entry is not None and matches(entry):
                found.append(_describe(entry))
            size, before = size + len(body), f"({stream_id.decode()}"
        if len(rows) < STEP:
            return found, False
        if size > MAX_ENTRY_BYTES:
            break
    return found, True


def _decode(body: bytes) -> Entry | None:
    try:
        return msgspec.json.decode(body, type=Entry)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # The worker quarantines it.


def _describe(entry: Entry) -> dict[str, Any]:
    return {
        "delivery_id": entry.delivery_id,
        "source": entry.source,
        "status": "accepted",
        "command": entry.command,
        "session_id": entry.session_id,
        "accepted_at": format_utc(entry.accepted_at),
    }
