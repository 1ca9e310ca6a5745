"""The worker's side of the inbox: reads a shard's entries, and acknowledges them once they are committed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from redis import Redis
from redis.client import Pipeline
from redis.exceptions import OutOfMemoryError

from models.queue.inbox import (
    BACKLOG_BYTES_KEY,
    BACKLOG_KEY,
    ENTRY_BYTES,
    ENTRY_FIELD,
    JOURNAL_CHANNEL,
    OUTCOME_CHANNEL,
    OUTCOME_SECONDS,
    PERMITTED_MEMORY,
    RELEASE_LUA,
    RELEASE_SCRIPT,
    Entry,
    Identity,
    dedup_key,
    drain_pending_key,
    inbox_key,
)
from models.queue.job_queue import name_shards
from models.queue.metrics import Counts, add_counts
from models.queue.task_notifications import TASKS_CHANNEL, TaskNotification
from sessions.rules.event_log import ApplyResult
from worker.outcomes import EncodedOutcome

MAX_ENTRIES = 500
MAX_BYTES = 1_048_576
"""Per transaction: enough to be worth its round trips, and little enough to repeat. A megabyte of batches is seconds of
work; of more, each transaction would load all and finish a part, or run out of time and start again with one entry."""
FIRST_STEP, STEP = 4, 50
"""Entries read at a time, at first from all shards together and then from each: Redis builds its reply in memory, of
which large entries may leave little."""
MARK_SECONDS = 2.0
"""The pending mark outlives a worker that dies while draining by at most that."""
OUTCOMES_AT_ONCE_BYTES = 1_048_576
"""Outcomes per Redis command, but at least one."""
UNREADABLE_KEY = "sr:unreadable"
"""A stream with unreadable entries as they were found: nothing is lost, and nothing waits behind them."""
SEEN_SECONDS, SEEN_SECONDS_WHEN_SHORT = 120, 5
"""Time for which the relay recognizes a repeated delivery after it was applied; later the worker does, in Postgres. The
shorter time holds while more than half of the permitted memory is in use."""
OUTCOME_SHARE = 1 / 16
"""Share of the permitted memory for one source's outcomes."""
OUTCOME_SHARE_BYTES = 33_554_432
"""The same for a Redis without `maxmemory`."""
OUTCOME_OVERHEAD = 300
"""Bytes of an outcome beyond its text."""

_MEMORY_LUA = f"""
local function memory()
  local told = redis.pcall('INFO', 'memory')
  if type(told) ~= 'string' then return 0, 0 end
  local limit = tonumber(string.match(told, 'maxmemory:(%d+)')) or 0
  return limit * {PERMITTED_MEMORY}, tonumber(string.match(told, 'used_memory:(%d+)')) or 0
end
"""
"""Returns the permitted memory, 0 without a limit, and the used memory."""

ACK_SCRIPT = f"""#!lua flags=allow-oom
{_MEMORY_LUA}
local permitted, used = memory()
local seconds = permitted > 0 and used > permitted / 2 and {SEEN_SECONDS_WHEN_SHORT} or {SEEN_SECONDS}
local gone, freed = {{}}, {{}}
for i = 0, #KEYS / 2 - 2 do
  local stream, seen = KEYS[3 + 2 * i], KEYS[4 + 2 * i]
  local id, source, size, ending = unpack(ARGV, 4 * i + 1, 4 * i + 4)
  if redis.call('XDEL', stream, id) == 1 then
    gone[source] = (gone[source] or 0) + 1
    freed[source] = (freed[source] or 0) + size + {ENTRY_BYTES}
  end
  if ending == 'expire' then redis.call('EXPIRE', seen, seconds) end
  if ending == 'forget' then redis.call('DEL', seen) end
end
for source, count in pairs(gone) do
  local left = redis.call('HINCRBY', KEYS[1], source, -count)
  if left <= 0 then redis.call('HDEL', KEYS[1], source) end
  if redis.call('HINCRBY', KEYS[2], source, -freed[source]) <= 0 or left <= 0 then
    redis.call('HDEL', KEYS[2], source)
  end
end
"""
"""Acknowledges entries: deletes them and reduces the backlogs of their sources by those that it really deleted, so it
is repeatable. Works without free memory. KEYS: BACKLOG_KEY, BACKLOG_BYTES_KEY, and for each entry its stream and its
deduplication key; ARGV for each entry: id, source, length of its text, and the fate of that key: `expire`, `forget`, or
empty. One call for all shards: finding out how much memory is in use costs as much as several entries."""

FINISH_SCRIPT = """#!lua flags=allow-oom
local ended = {}
for i = 1, #KEYS, 3 do
  ended[#ended + 1] = redis.call('XLEN', KEYS[i]) > 0 and 0 or 1
  if ended[#ended] == 1 then redis.call('DEL', KEYS[i + 1], KEYS[i + 2]) end
end
return ended
"""
"""Ends the drains of shards whose stream is empty: the next push then enqueues another. Returns 1 for each such shard,
else 0. KEYS for each shard: stream, its pending mark, and its count of failures."""

OUTCOME_SCRIPT = f"""
{_MEMORY_LUA}{RELEASE_LUA}
local permitted, used = memory()
local most = permitted > 0 and permitted * {OUTCOME_SHARE} or {OUTCOME_SHARE_BYTES}
local turn = math.floor(redis.call('TIME')[1] / {OUTCOME_SECONDS})
for i, key in ipairs(KEYS) do
  local source, outcome, kept, refused = unpack(ARGV, 4 * i - 2, 4 * i + 1)
  release(key)
  local share = 'sr:held:' .. source .. ':' .. turn
  local before = 'sr:held:' .. source .. ':' .. turn - 1
  local size = #outcome + {OUTCOME_OVERHEAD}
  local held = tonumber(redis.call('GET', share) or 0) + tonumber(redis.call('GET', before) or 0)
  local fits = held + size <= most and (permitted == 0 or used + size <= permitted)
  if fits then
    local answer = redis.pcall('SET', key, size .. ' ' .. share .. '\\n' .. outcome, 'EX', {OUTCOME_SECONDS})
    fits = not answer.err
  end
  if fits then
    used = used + size
    redis.call('INCRBY', share, size)
    redis.call('EXPIRE', share, {2 * OUTCOME_SECONDS})
  end
  redis.call('PUBLISH', ARGV[1], fits and kept or refused)
end
"""
"""Stores outcomes within the share of their sources, and publishes them. KEYS: their keys; ARGV: the channel, and for
each its source, its outcome, and the messages if it is stored and if it is not. A source's bytes are counted in keys
that expire after two turns of OUTCOME_SECONDS, so a wrong count does not last."""

logger = logging.getLogger(__name__)

_Rows = list[tuple[bytes, dict[bytes, bytes]]]
"""Entries of a stream: their ids and fields."""


class StreamEntry(msgspec.Struct, frozen=True):
    """An entry with its shard and its id in the stream."""

    shard: int
    stream_id: bytes
    entry: Entry
    size: int
    """Bytes of the encoded entry."""


class _Sent(msgspec.Struct, frozen=True):
    """The part of an entry that names its source."""

    source: str


class Waiting(NamedTuple):
    """The oldest entries of some shards, and the one of them that took too long the last time."""

    entries: list[StreamEntry]
    suspect: Identity | None


def read_entries(redis: Redis, shards: Sequence[int]) -> Waiting:
    """Returns the oldest entries of these shards, as many as fit into one transaction; at least one if there is any.
    Each shard has its turn, the one with the oldest entry first. If an entry took too long the last time, only its
    shard is read. Marks the drains of the shards as pending: while a mark stands no other drain is enqueued, and this
    one checks the shard again when it removes the mark."""
    waiting: list[StreamEntry] = []
    size = 0
    count = max(1, FIRST_STEP // len(shards))
    rows, suspect = _read_first(redis, shards, count)
    while rows:
        unfinished: dict[int, bytes] = {}
        for shard, found in rows.items():
            for stream_id, fields in found:
                body = fields.get(ENTRY_FIELD, b"")
                size += len(body)
                if waiting and (size > MAX_BYTES or len(waiting) >= MAX_ENTRIES):
                    return Waiting(waiting, suspect)
                try:
                    waiting.append(StreamEntry(shard, stream_id, msgspec.json.decode(body, type=Entry), len(body)))
                except (msgspec.DecodeError, UnicodeDecodeError):
                    _quarantine(redis, shard, stream_id, fields)
            if len(found) >= count:
                unfinished[shard] = found[-1][0]
        if not unfinished:
            break
        average = size // max(1, len(waiting)) + 1
        most = min(MAX_ENTRIES - len(waiting), (MAX_BYTES - size) // average) // len(unfinished)
        count = max(1, min(STEP, most))
        rows = _read_on(redis, unfinished, count)
    return Waiting(waiting, suspect)


def _read_first(redis: Redis, shards: Sequence[int], count: int) -> tuple[dict[int, _Rows], Identity | None]:
    with redis.pipeline(transaction=False) as pipeline:
        for shard in shards:
            pipeline.set(drain_pending_key(shard), "1", px=int(MARK_SECONDS * 1000))
            pipeline.get(slow_key(shard))
            pipeline.xrange(inbox_key(shard), count=count)
        answers = pipeline.execute(raise_on_error=False)
    rows: dict[int, _Rows] = {}
    suspects: dict[int, Identity] = {}
    for shard, marked, slow, found in zip(shards, answers[::3], answers[1::3], answers[2::3], strict=True):
        # Without memory the mark cannot be set, but draining frees memory.
        for answer in (slow, found) if isinstance(marked, OutOfMemoryError) else (marked, slow, found):
            if isinstance(answer, Exception):
                raise answer
        if found:
            rows[shard] = found
        if slow and found:
            source, _, delivery_id = slow.decode().partition(":")
            suspects[shard] = (source, delivery_id)
    if suspects:
        shard, suspect = next(iter(suspects.items()))
        return {shard: rows[shard]}, suspect
    return dict(sorted(rows.items(), key=lambda item: _age(item[1][0][0]))), None


def _age(stream_id: bytes) -> tuple[int, ...]:
    """Returns a stream id as numbers: milliseconds, and a number within the millisecond."""
    return tuple(map(int, stream_id.split(b"-")))


def _read_on(redis: Redis, after: Mapping[int, bytes], count: int) -> dict[int, _Rows]:
    with redis.pipeline(transaction=False) as pipeline:
        for shard, stream_id in after.items():
            pipeline.xrange(inbox_key(shard), min=f"({stream_id.decode()}", count=count)
        return dict(zip(after, pipeline.execute(), strict=True))


def _quarantine(redis: Redis, shard: int, stream_id: bytes, fields: dict[bytes, bytes]) -> None:
    logger.error("Shard %02d: moved the unreadable entry %s to %s.", shard, stream_id.decode(), UNREADABLE_KEY)
    kept: dict[Any, Any] = {"from": f"{inbox_key(shard)} {stream_id.decode()}", **fields}
    with redis.pipeline(transaction=True) as pipeline:
        pipeline.xadd(UNREADABLE_KEY, kept)
        gone = _Gone(shard, stream_id, _source_of(fields), len(fields.get(ENTRY_FIELD, b"")))
        _delete(pipeline, [gone])
        pipeline.execute()


def _source_of(fields: dict[bytes, bytes]) -> str:
    """Returns the source of an unreadable entry, or an empty string."""
    try:
        return msgspec.json.decode(fields.get(ENTRY_FIELD, b""), type=_Sent).source
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


class _Gone(NamedTuple):
    """An entry to delete, and the fate of its deduplication key: see ACK_SCRIPT."""

    shard: int
    stream_id: bytes
    source: str
    size: int
    seen: str = ""
    ending: Literal["expire", "forget", ""] = ""


def _delete(pipeline: Pipeline, gone: Sequence[_Gone]) -> None:
    """Delete entries, and reduce the backlogs by them."""
    keys = [BACKLOG_KEY, BACKLOG_BYTES_KEY, *(key for item in gone for key in (inbox_key(item.shard), item.seen))]
    arguments = [part for item in gone for part in (item.stream_id, item.source, item.size, item.ending)]
    pipeline.eval(ACK_SCRIPT, len(keys), *keys, *arguments)


def acknowledge(
    redis: Redis,
    shards: Sequence[int],
    entries: Sequence[StreamEntry],
    applied: Sequence[ApplyResult],
    *,
    outcomes: Sequence[EncodedOutcome] = (),
    stale: Sequence[str] = (),
    news: TaskNotification | None = None,
    counts: Counts | None = None,
) -> set[int]:
    """Delete committed entries by id, which needs no free memory; then delete stale outcomes, send the new ones and add
    the counts, as far as possible. Returns those of the drained shards that are empty, whose drains ended thereby.
    Repeatable. Raises RedisError if the entries may still be there."""
    gone = [_gone(item, applied[number] if number < len(applied) else None) for number, item in enumerate(entries)]
    grown = {item.entry.session_id for item in applied if item.entry.session_id and item.status != "duplicate"}
    parts = _in_parts(outcomes)
    with redis.pipeline(transaction=False) as pipeline:
        _delete(pipeline, gone)
        if stale:
            pipeline.eval(RELEASE_SCRIPT, len(stale), *stale)
        _send(pipeline, next(parts, []))
        if grown:
            pipeline.publish(JOURNAL_CHANNEL, "\n".join(sorted(grown)))
        if news:
            pipeline.publish(TASKS_CHANNEL, msgspec.json.encode(news))
        if counts:
            add_counts(pipeline, counts)
        _finish_if_empty(pipeline, shards)
        deleted, *sent, ended = pipeline.execute(raise_on_error=False)
        if isinstance(deleted, Exception):
            raise deleted
        for part in parts:
            _send(pipeline, part)
            sent += pipeline.execute(raise_on_error=False)
    for trouble in (answer for answer in sent if isinstance(answer, Exception)):
        logger.warning("%s: not all outcomes and counts could be sent: %s", name_shards(shards).capitalize(), trouble)
    return _empty_of(shards, ended)


def finish_if_empty(redis: Redis, shards: Sequence[int]) -> set[int]:
    """End the drains of those shards that are empty, so that the next push enqueues another; returns them."""
    with redis.pipeline(transaction=False) as pipeline:
        _finish_if_empty(pipeline, shards)
        return _empty_of(shards, *pipeline.execute())


def _finish_if_empty(pipeline: Pipeline, shards: Sequence[int]) -> None:
    keys = [key for shard in shards for key in (inbox_key(shard), drain_pending_key(shard), failure_count_key(shard))]
    pipeline.eval(FINISH_SCRIPT, len(keys), *keys)


def _empty_of(shards: Sequence[int], ended: Any) -> set[int]:
    """Returns the shards whose drains ended, of the answer to FINISH_SCRIPT; none if it is an error."""
    if isinstance(ended, Exception):
        return set()
    return {shard for shard, is_empty in zip(shards, ended, strict=True) if is_empty == 1}


def slow_key(shard: int) -> str:
    """The key that holds the identity of an entry that took too long."""
    return f"sr:slow:{shard:02d}"


def failure_count_key(shard: int) -> str:
    """The key that counts how often in a row Postgres was unavailable for the shard."""
    return f"sr:trouble:{shard:02d}"


def _gone(item: StreamEntry, applied: ApplyResult | None) -> _Gone:
    entry = item.entry
    ending: Literal["expire", "forget", ""] = "" if applied is None else "expire"
    if applied is not None and (applied.status == "conflict" or not applied.binds):
        # Kept, it would make the relay reject the first command, or drop a delivery that is to be judged anew.
        ending = "forget"
    return _Gone(
        item.shard, item.stream_id, entry.source, item.size, dedup_key(entry.source, entry.delivery_id), ending
    )


def _in_parts(outcomes: Iterable[EncodedOutcome]) -> Iterator[list[EncodedOutcome]]:
    part: list[EncodedOutcome] = []
    size = 0
    for item in outcomes:
        if part and size + len(item.outcome) > OUTCOMES_AT_ONCE_BYTES:
            yield part
            part, size = [], 0
        part.append(item)
        size += len(item.outcome)
    if part:
        yield part


def _send(pipeline: Pipeline, outcomes: Sequence[EncodedOutcome]) -> None:
    kept = [item for item in outcomes if item.outcome]
    if kept:
        arguments = [part for item in kept for part in (item.source, item.outcome, item.kept, item.refused)]
        pipeline.eval(OUTCOME_SCRIPT, len(kept), *(item.key for item in kept), OUTCOME_CHANNEL, *arguments)
    for item in outcomes:
        if not item.outcome:
            pipeline.publish(OUTCOME_CHANNEL, item.refused)
