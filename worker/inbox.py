"""The worker's side of the inbox: reading a shard's entries, taking them out once they are committed, and telling those
who wait."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, cast

import msgspec
from redis import Redis
from redis.client import Pipeline

from models.queue.inbox import (
    ANNOUNCED_BYTES,
    BACKLOG_BYTES_KEY,
    BACKLOG_KEY,
    ENTRY_FIELD,
    JOURNAL_CHANNEL,
    OUTCOME_BYTES,
    OUTCOME_CHANNEL,
    OUTCOME_SCRIPT,
    RELEASE_SCRIPT,
    TAKE_OUT_SCRIPT,
    Announcement,
    Entry,
    Outcome,
    inbox_key,
    outcome_key,
    seen_key,
)
from models.queue.task_notifications import TASKS_CHANNEL, TaskNews
from sessions.commands.event_log import Applied
from sessions.commands.task_access import may_read_answer
from sessions.responses.oversized_responses import without_data
from sessions.responses.redaction import tell

MAX_ENTRIES = 500
MAX_BYTES = 8 * 1_048_576
"""Of one transaction: enough to make it worth its round trips, little enough to hold and to redo."""
FIRST_STEP, STEP = 4, 50
"""Entries read at a time, first and then: Redis puts an answer together in its memory, of which large entries that wait
may leave little."""
OUTCOMES_AT_ONCE_BYTES = 1_048_576
"""Of outcomes that are sent to Redis in one command, but at least one."""
UNREADABLE_KEY = "sr:unreadable"
"""A stream of entries that are none, as they were found: nothing is thrown away, and nothing waits behind them."""

logger = logging.getLogger(__name__)


class Waiting(msgspec.Struct, frozen=True):
    """An entry with its id in the stream."""

    stream_id: bytes
    entry: Entry
    size: int
    """Bytes of the entry as it lies in the stream."""


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
                waiting.append(Waiting(stream_id, msgspec.json.decode(body, type=Entry), len(body)))
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
        gone = _Gone(stream_id, _source_of(fields), len(fields.get(ENTRY_FIELD, b"")))
        _delete(pipeline, shard, [gone])
        pipeline.execute()


def _source_of(fields: dict[bytes, bytes]) -> str:
    """Who counts for what is no entry, if it says so."""
    try:
        return msgspec.json.decode(fields.get(ENTRY_FIELD, b""), type=_Sent).source
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


class _Gone(NamedTuple):
    """An entry that is deleted, and what becomes of its seen key: see TAKE_OUT_SCRIPT."""

    stream_id: bytes
    source: str
    size: int
    seen: str = ""
    ending: Literal["expire", "forget", ""] = ""


def _delete(pipeline: Pipeline, shard: int, gone: Sequence[_Gone]) -> None:
    """Delete entries, and count them down."""
    keys = [inbox_key(shard), BACKLOG_KEY, BACKLOG_BYTES_KEY, *(item.seen for item in gone)]
    arguments = [part for item in gone for part in (item.stream_id, item.source, item.size, item.ending)]
    pipeline.eval(TAKE_OUT_SCRIPT, len(keys), *keys, *arguments)


def take_out(
    redis: Redis,
    shard: int,
    waiting: Sequence[Waiting],
    applied: Sequence[Applied],
    *,
    stale: Sequence[str] = (),
    news: TaskNews | None = None,
) -> None:
    """Delete committed entries by id, which Redis does also without memory; then drop stale outcomes, and tell those
    who wait, as well as that goes. Repeatable. Raises RedisError if the entries may still be there."""
    gone = [_gone(item, applied[number] if number < len(applied) else None) for number, item in enumerate(waiting)]
    grown = {item.entry.session_id for item in applied if item.entry.session_id and item.status != "duplicate"}
    parts = _in_parts(_Told.of(item, stale) for item in applied if item.entry.waits)
    with redis.pipeline(transaction=False) as pipeline:
        _delete(pipeline, shard, gone)
        if stale:
            pipeline.eval(RELEASE_SCRIPT, len(stale), *stale)
        _tell(pipeline, next(parts, []))
        if grown:
            pipeline.publish(JOURNAL_CHANNEL, "\n".join(sorted(grown)))
        if news:
            pipeline.publish(TASKS_CHANNEL, msgspec.json.encode(news))
        deleted, *told = pipeline.execute(raise_on_error=False)
        if isinstance(deleted, Exception):
            raise deleted
        for part in parts:
            _tell(pipeline, part)
            told += pipeline.execute(raise_on_error=False)
    for trouble in (answer for answer in told if isinstance(answer, Exception)):
        logger.warning("Shard %02d: not all who wait could be told: %s", shard, trouble)


def _gone(item: Waiting, applied: Applied | None) -> _Gone:
    entry = item.entry
    ending: Literal["expire", "forget", ""] = "" if applied is None else "expire"
    if applied is not None and (applied.status == "conflict" or not applied.binds):
        # It would make the relay take the first command for the wrong one, or drop what is to be judged anew.
        ending = "forget"
    return _Gone(item.stream_id, entry.source, item.size, seen_key(entry.source, entry.delivery_id), ending)


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome on its way to who waits for it."""

    key: str
    source: str
    outcome: bytes
    """To be kept, unless it is empty."""
    kept: bytes
    """What is announced then."""
    refused: bytes
    """What is announced else."""

    @classmethod
    def of(cls, item: Applied, stale: Collection[str]) -> _Told:
        """Small outcomes are announced as they are, kept or not; of large ones that they are there to be fetched."""
        entry = item.entry
        key = outcome_key(entry.source, entry.delivery_id, entry.hash)
        body = item.response if may_read_answer(entry) else tell(item.response, entry.scopes)
        outcome = Outcome(status=item.http_status, body=body, accepted_at=entry.accepted_at)
        encoded = msgspec.json.encode(outcome)
        whole = _announce(key, outcome) if len(encoded) <= ANNOUNCED_BYTES else b""
        fits = len(encoded) <= OUTCOME_BYTES
        return cls(
            key=key,
            source=entry.source,
            outcome=encoded if fits and key not in stale else b"",
            kept=whole or _announce(key),
            refused=whole or _announce(key, without_data(entry, outcome, passing=fits)),
        )


def _announce(key: str, outcome: Outcome | None = None) -> bytes:
    return msgspec.json.encode(Announcement(key=key, outcome=outcome))


def _in_parts(told: Iterable[_Told]) -> Iterator[list[_Told]]:
    part: list[_Told] = []
    size = 0
    for item in told:
        if part and size + len(item.outcome) > OUTCOMES_AT_ONCE_BYTES:
            yield part
            part, size = [], 0
        part.append(item)
        size += len(item.outcome)
    if part:
        yield part


def _tell(pipeline: Pipeline, told: Sequence[_Told]) -> None:
    kept = [item for item in told if item.outcome]
    if kept:
        arguments = [part for item in kept for part in (item.source, item.outcome, item.kept, item.refused)]
        pipeline.eval(OUTCOME_SCRIPT, len(kept), *(item.key for item in kept), OUTCOME_CHANNEL, *arguments)
    for item in told:
        if not item.outcome:
            pipeline.publish(OUTCOME_CHANNEL, item.refused)
