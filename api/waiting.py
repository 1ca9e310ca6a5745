"""The deliveries that wait in the inbox, as they lie there. Needs no Postgres."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from models.errors import Unavailable
from models.inbox import ENTRY_FIELD, SHARDS, Entry, inbox_key
from models.timestamps import format_utc
from relay.connections import RedisTrouble
from sessions.answers import Page

LOOKED_AT = 200
"""Entries of each shard, the newest: they are read whole, and what waits longer than these is counted elsewhere."""


async def list_waiting(redis: Redis, *, limit: int, shown: Callable[[Entry], bool]) -> Page:
    """The newest entries that are `shown`. `truncated` says that there may be more. Raises Unavailable."""
    found: list[Entry] = []
    truncated = False
    for shard in range(SHARDS):
        try:
            rows = cast(
                "list[tuple[bytes, dict[bytes, bytes]]]", await redis.xrevrange(inbox_key(shard), count=LOOKED_AT)
            )
        except RedisTrouble as error:
            raise Unavailable("The inbox does not answer at the moment; try again in some seconds.") from error
        truncated = truncated or len(rows) == LOOKED_AT
        entries = (_decode(fields.get(ENTRY_FIELD, b"")) for _, fields in rows)
        found += (entry for entry in entries if entry is not None and shown(entry))
        found = sorted(found, key=lambda entry: entry.accepted_at, reverse=True)
        truncated = truncated or len(found) > limit
        del found[limit:]
    return Page(items=[_describe(entry) for entry in found], truncated=truncated)


def _decode(body: bytes) -> Entry | None:
    try:
        return msgspec.json.decode(body, type=Entry)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # The worker sets it aside.


def _describe(entry: Entry) -> dict[str, Any]:
    return {
        "delivery_id": entry.delivery_id,
        "source": entry.source,
        "status": "accepted",
        "command": entry.command,
        "session_id": entry.session_id,
        "accepted_at": format_utc(entry.accepted_at),
    }
