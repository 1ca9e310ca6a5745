"""The worker's side of the inbox: reading a shard's entries, and taking them out once they are committed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

import msgspec
from redis import Redis

from models.commands import COMMANDS
from models.inbox import (
    ENTRY_FIELD,
    JOURNAL_CHANNEL,
    OUTCOME_CHANNEL,
    OUTCOME_SECONDS,
    RESULT_SECONDS,
    SEEN_SECONDS,
    Announcement,
    Entry,
    Outcome,
    inbox_key,
    outcome_key,
    seen_key,
)
from sessions.journal import Applied

MAX_ENTRIES = 500
MAX_BYTES = 8 * 1_048_576
"""Of one transaction: enough to make it worth its round trips, little enough to hold and to redo."""
STEP = 50
"""Entries read at a time, so that a shard full of large ones is not held whole in memory."""
UNREADABLE_KEY = "sr:unreadable"
"""A stream of entries that are none, as they were found: nothing is thrown away, and nothing waits behind them."""

logger = logging.getLogger(__name__)


class Waiting(msgspec.Struct, frozen=True):
    """An entry with its id in the stream."""

    stream_id: bytes
    entry: Entry


def read_entries(redis: Redis, shard: int) -> list[Waiting]:
    """The oldest entries of a shard, as many as one transaction takes; at least one if there is any."""
    waiting: list[Waiting] = []
    size = 0
    after = "-"
    while len(waiting) < MAX_ENTRIES:
        rows = cast("list[tuple[bytes, dict[bytes, bytes]]]", redis.xrange(inbox_key(shard), min=after, count=STEP))
        for stream_id, fields in rows:
            body = fields.get(ENTRY_FIELD, b"")
            size += len(body)
            if waiting and size > MAX_BYTES:
                return waiting
            try:
                waiting.append(Waiting(stream_id, msgspec.json.decode(body, type=Entry)))
            except (msgspec.DecodeError, UnicodeDecodeError):
                _set_aside(redis, shard, stream_id, fields)
        if len(rows) < STEP:
            break
        after = f"({rows[-1][0].decode()}"
    return waiting


def _set_aside(redis: Redis, shard: int, stream_id: bytes, fields: dict[bytes, bytes]) -> None:
    logger.error("Shard %02d: %s is no entry; it is kept in %s.", shard, stream_id.decode(), UNREADABLE_KEY)
    kept: dict[Any, Any] = {"from": f"{inbox_key(shard)} {stream_id.decode()}", **fields}
    with redis.pipeline(transaction=True) as pipeline:
        pipeline.xadd(UNREADABLE_KEY, kept)
        pipeline.xdel(inbox_key(shard), stream_id)
        pipeline.execute()


def take_out(
    redis: Redis, shard: int, waiting: Sequence[Waiting], applied: Sequence[Applied], *, stale: Sequence[str] = ()
) -> None:
    """Delete committed entries by id, tell those who wait, and drop stale outcomes, in one transaction. Repeatable."""
    grown = {item.entry.session_id for item in applied if item.entry.session_id and item.status != "duplicate"}
    with redis.pipeline(transaction=True) as pipeline:
        pipeline.xdel(inbox_key(shard), *(item.stream_id for item in waiting))
        for item in applied:
            entry = item.entry
            seen = seen_key(entry.source, entry.delivery_id)
            if item.status == "conflict":
                pipeline.delete(seen)  # It would make the relay take the first command for the wrong one.
            else:
                pipeline.expire(seen, SEEN_SECONDS)
            is_read = COMMANDS[entry.command].is_read if entry.command in COMMANDS else False
            if not (entry.waits or is_read):
                continue
            key = outcome_key(entry.source, entry.delivery_id, entry.hash)
            outcome = Outcome(status=item.http_status, body=item.response)
            pipeline.set(key, msgspec.json.encode(outcome), ex=RESULT_SECONDS if is_read else OUTCOME_SECONDS)
            if entry.waits:
                pipeline.publish(OUTCOME_CHANNEL, msgspec.json.encode(Announcement(key=key, outcome=outcome)))
        if stale:
            pipeline.delete(*stale)
        if grown:
            pipeline.publish(JOURNAL_CHANNEL, "\n".join(sorted(grown)))
        pipeline.execute()
