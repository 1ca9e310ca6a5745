"""The worker's side of the inbox: reading a shard's entries, and taking them out once they are committed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

import msgspec
from redis import Redis
from redis.client import Pipeline

from models.commands import COMMANDS
from models.inbox import (
    BACKLOG_KEY,
    ENTRY_FIELD,
    JOURNAL_CHANNEL,
    OUTCOME_CHANNEL,
    OUTCOME_SECONDS,
    RESULT_SECONDS,
    SEEN_SECONDS,
    TAKE_OUT_SCRIPT,
    Announcement,
    Entry,
    Outcome,
    inbox_key,
    outcome_key,
    seen_key,
)
from models.tasks import TASKS_CHANNEL, TaskNews
from sessions.holding import may_read_answer
from sessions.journal import Applied
from sessions.reticence import tell

MAX_ENTRIES = 500
MAX_BYTES = 8 * 1_048_576
"""Of one transaction: enough to make it worth its round trips, little enough to hold and to redo."""
FIRST_STEP, STEP = 4, 50
"""Entries read at a time, first and then: Redis puts an answer together in its memory, of which large entries that wait
may leave little."""
UNREADABLE_KEY = "sr:unreadable"
"""A stream of entries that are none, as they were found: nothing is thrown away, and nothing waits behind them."""

logger = logging.getLogger(__name__)


class Waiting(msgspec.Struct, frozen=True):
    """An entry with its id in the stream."""

    stream_id: bytes
    entry: Entry


class _Sent(msgspec.Struct, frozen=True):
    """As much of an entry as tells whose it is."""

    source: str


def read_entries(redis: Redis, shard: int) -> list[Waiting]:
    """The oldest entries of a shard, as many as one transaction takes; at least one if there is any."""
    waiting: list[Waiting] = []
    size = 0
    after = "-"
    count = FIRST_STEP
    while len(waiting) < MAX_ENTRIES:
        rows = cast("list[tuple[bytes, dict[bytes, bytes]]]", redis.xrange(inbox_key(shard), min=after, count=count))
        for stream_id, fields in rows:
            body = fields.get(ENTRY_FIELD, b"")
            size += len(body)
            if waiting and size > MAX_BYTES:
                return waiting
            try:
                waiting.append(Waiting(stream_id, msgspec.json.decode(body, type=Entry)))
            except (msgspec.DecodeError, UnicodeDecodeError):
                _set_aside(redis, shard, stream_id, fields)
        if len(rows) < count:
            break
        after = f"({rows[-1][0].decode()}"
        average = size // max(1, len(waiting)) + 1
        count = max(1, min(STEP, MAX_ENTRIES - len(waiting), (MAX_BYTES - size) // average))
    return waiting


def _set_aside(redis: Redis, shard: int, stream_id: bytes, fields: dict[bytes, bytes]) -> None:
    logger.error("Shard %02d: %s is no entry; it is kept in %s.", shard, stream_id.decode(), UNREADABLE_KEY)
    kept: dict[Any, Any] = {"from": f"{inbox_key(shard)} {stream_id.decode()}", **fields}
    with redis.pipeline(transaction=True) as pipeline:
        pipeline.xadd(UNREADABLE_KEY, kept)
        _delete(pipeline, shard, [(stream_id, _source_of(fields))])
        pipeline.execute()


def _source_of(fields: dict[bytes, bytes]) -> str:
    """Who counts for what is no entry, if it says so."""
    try:
        return msgspec.json.decode(fields.get(ENTRY_FIELD, b""), type=_Sent).source
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _delete(pipeline: Pipeline, shard: int, entries: Sequence[tuple[bytes, str]]) -> None:
    """Delete entries, given by their ids and sources, and count them down."""
    arguments = [part for entry in entries for part in entry]
    pipeline.eval(TAKE_OUT_SCRIPT, 2, inbox_key(shard), BACKLOG_KEY, *arguments)


def take_out(
    redis: Redis,
    shard: int,
    waiting: Sequence[Waiting],
    applied: Sequence[Applied],
    *,
    stale: Sequence[str] = (),
    news: TaskNews | None = None,
) -> None:
    """Delete committed entries by id, tell those who wait, and drop stale outcomes, in one transaction. Repeatable."""
    grown = {item.entry.session_id for item in applied if item.entry.session_id and item.status != "duplicate"}
    with redis.pipeline(transaction=True) as pipeline:
        _delete(pipeline, shard, [(item.stream_id, item.entry.source) for item in waiting])
        for item in applied:
            entry = item.entry
            seen = seen_key(entry.source, entry.delivery_id)
            if item.status == "conflict" or not item.binds:
                # It would make the relay take the first command for the wrong one, or drop what is to be judged anew.
                pipeline.delete(seen)
            else:
                pipeline.expire(seen, SEEN_SECONDS)
            is_read = COMMANDS[entry.command].is_read if entry.command in COMMANDS else False
            if not (entry.waits or is_read):
                continue
            key = outcome_key(entry.source, entry.delivery_id, entry.hash)
            told = item.response if may_read_answer(entry) else tell(item.response, entry.scopes)
            outcome = Outcome(status=item.http_status, body=told, accepted_at=entry.accepted_at)
            pipeline.set(key, msgspec.json.encode(outcome), ex=RESULT_SECONDS if is_read else OUTCOME_SECONDS)
            if entry.waits:
                pipeline.publish(OUTCOME_CHANNEL, msgspec.json.encode(Announcement(key=key, outcome=outcome)))
        if stale:
            pipeline.delete(*stale)
        if grown:
            pipeline.publish(JOURNAL_CHANNEL, "\n".join(sorted(grown)))
        if news:
            pipeline.publish(TASKS_CHANNEL, msgspec.json.encode(news))
        pipeline.execute()
