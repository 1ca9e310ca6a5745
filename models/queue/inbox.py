"""The inbox in Redis: its keys, its entries, and the one script that pushes them.

A shard is a stream; all commands of a session are in one shard, in the order in which they were accepted. Who pushes
(`relay`) and who drains (`worker`) bring their own connections.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
from msgspec import Raw

from models.commands.content_ids import REPEAT_SECONDS
from models.commands.definitions import name_of
from models.commands.field_types import Scope
from models.commands.payloads import Submission
from models.timestamps import format_utc

SHARDS = 16
"""At most this many workers drain at a time."""
WAKE_SECONDS = 5
"""How long a shard counts as woken: as long as one drain job may go on."""
SEEN_SECONDS, SEEN_SECONDS_WHEN_SHORT = 120, 5
"""How long the relay itself recognizes a repeated delivery after it was applied; then the worker does, in Postgres. The
shorter time counts while Redis has more than half of the permitted memory in use."""
OUTCOME_SECONDS = 60
"""How long an outcome is kept that no waiting sender has got yet."""
PERMITTED_MEMORY = 0.7
"""Of `maxmemory`, for what senders make Redis hold; workers need the rest to start and to drain."""
OUTCOME_SHARE = 1 / 16
"""Of the permitted memory, for the outcomes of one source."""
OUTCOME_SHARE_BYTES = 33_554_432
"""The same for a Redis without `maxmemory`."""
OUTCOME_BYTES = 524_288
"""Of one outcome at most: more than the longest answer to a read has, whatever its script."""
ANNOUNCED_BYTES = 4_096
"""Larger outcomes are fetched by the relay that waits: Redis cuts off subscribers with more than 32 MB unread."""
OUTCOME_OVERHEAD = 300
"""What an outcome takes beside its text."""
ENTRY_BYTES = 1_000
"""What an entry takes in Redis beside its text, the mark of its delivery among it: 550 to 700 bytes were measured, and
up to 3 % more for large ones."""

ENTRY_FIELD = b"e"
OUTCOME_CHANNEL = "sr:outcomes"
"""All outcomes that somebody waits for, each as an Announcement."""
BACKLOG_KEY = "sr:backlog"
"""How many entries of each source wait, in all shards together. Who has none is not in it."""
BACKLOG_BYTES_KEY = "sr:backlog:bytes"
"""How many bytes these take, ENTRY_BYTES for each included."""
JOURNAL_CHANNEL = "sr:journal"
"""The ids of sessions whose journal has grown, one to a line."""

REPEAT_WINDOW = timedelta(seconds=REPEAT_SECONDS)

PUSH_SCRIPT = """
local receipts, woken = {}, {}
for i = 0, #KEYS / 5 - 1 do
  local seen, stream, wake, backlog, sizes = unpack(KEYS, 5 * i + 1, 5 * i + 5)
  local hash, receipt, waits, source, entry, since = unpack(ARGV, 6 * i + 1, 6 * i + 6)
  local known = redis.call('GET', seen)
  if known and since ~= '' and cjson.decode(string.sub(known, 65)).accepted_at <= since then known = false end
  if known and string.sub(known, 1, 64) ~= hash then
    receipts[i + 1] = {'conflict', string.sub(known, 65)}
  elseif known and waits == '0' then
    receipts[i + 1] = {'duplicate', string.sub(known, 65)}
  else
    if not known then redis.call('SET', seen, hash .. receipt) end
    redis.call('XADD', stream, '*', 'e', entry)
    redis.call('HINCRBY', backlog, source, 1)
    redis.call('HINCRBY', sizes, source, #entry + ENTRY_BYTES)
    if redis.call('SET', wake, '1', 'NX', 'EX', WAKE_SECONDS) then woken[#woken + 1] = stream end
    receipts[i + 1] = {known and 'duplicate' or 'accepted', known and string.sub(known, 65) or receipt}
  end
end
return {receipts, woken}
""".replace("WAKE_SECONDS", str(WAKE_SECONDS)).replace("ENTRY_BYTES", str(ENTRY_BYTES))
"""Pushes entries, each once: five keys and six arguments an entry, see `push_arguments`. Returns for each entry what
it was and the receipt in force, and the streams of the shards to wake. A duplicate whose sender waits is pushed again:
the worker drops it, and answers. What is known from before the moment of the last argument, if there is one, is another
event with the same content."""

_MEMORY_LUA = f"""
local function memory()
  local told = redis.pcall('INFO', 'memory')
  if type(told) ~= 'string' then return 0, 0 end
  local limit = tonumber(string.match(told, 'maxmemory:(%d+)')) or 0
  return limit * {PERMITTED_MEMORY}, tonumber(string.match(told, 'used_memory:(%d+)')) or 0
end
"""
"""The permitted memory, 0 without a limit, and what is used of it."""

TAKE_OUT_SCRIPT = f"""#!lua flags=allow-oom
{_MEMORY_LUA}
local permitted, used = memory()
local seconds = permitted > 0 and used > permitted / 2 and {SEEN_SECONDS_WHEN_SHORT} or {SEEN_SECONDS}
local gone, freed = {{}}, {{}}
for i = 0, #KEYS - 4 do
  local seen = KEYS[4 + i]
  local id, source, size, ending = unpack(ARGV, 4 * i + 1, 4 * i + 4)
  if redis.call('XDEL', KEYS[1], id) == 1 then
    gone[source] = (gone[source] or 0) + 1
    freed[source] = (freed[source] or 0) + size + {ENTRY_BYTES}
  end
  if ending == 'expire' then redis.call('EXPIRE', seen, seconds) end
  if ending == 'forget' then redis.call('DEL', seen) end
end
for source, count in pairs(gone) do
  local left = redis.call('HINCRBY', KEYS[2], source, -count)
  if left <= 0 then redis.call('HDEL', KEYS[2], source) end
  if redis.call('HINCRBY', KEYS[3], source, -freed[source]) <= 0 or left <= 0 then
    redis.call('HDEL', KEYS[3], source)
  end
end
"""
"""Deletes entries of a stream and counts down the backlogs of their sources by those that it really deleted, so that it
may be repeated; also when Redis has no memory left. KEYS stream, BACKLOG_KEY, BACKLOG_BYTES_KEY, and the seen key of
each entry; ARGV of each its id, its source, the length of its text, and what becomes of the seen key: `expire`,
`forget`, or nothing."""

CLEAR_BACKLOG_SCRIPT = """
for i = 3, #KEYS do
  if redis.call('XLEN', KEYS[i]) > 0 then return 0 end
end
return redis.call('DEL', KEYS[1], KEYS[2])
"""
"""Forgets all backlogs if nothing waits: KEYS BACKLOG_KEY, BACKLOG_BYTES_KEY and all streams. Says whether there was
one."""

_RELEASE_LUA = """
local function release(key)
  local head = redis.call('GETRANGE', key, 0, 511)
  local size, share = string.match(head, '^(%d+) ([^\\n]+)\\n')
  redis.call('DEL', key)
  if size and redis.call('EXISTS', share) == 1 then redis.call('DECRBY', share, size) end
end
"""
"""Deletes an outcome, and gives what it took back to its source's share."""

OUTCOME_SCRIPT = f"""
{_MEMORY_LUA}{_RELEASE_LUA}
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
"""Keeps outcomes within the share of their sources, and announces them: KEYS their keys; ARGV the channel, and of each
the source, the outcome, and what is announced if it is kept and if it is not. What a source holds is counted by turns
of OUTCOME_SECONDS, in keys that end by themselves, so nothing that is miscounted counts for long."""

RELEASE_SCRIPT = f"""#!lua flags=allow-oom
{_RELEASE_LUA}
for _, key in ipairs(KEYS) do release(key) end
"""
"""Deletes outcomes that whoever waited has got: KEYS."""

PushVerdict = Literal["accepted", "duplicate", "conflict"]


class Ruling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an operator wants of a dead letter: that it is applied once more, or given up."""

    by: str
    at: datetime
    discards: bool = False


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A command as it waits in the inbox, with what its sender was allowed when it was accepted."""

    source: str
    delivery_id: str
    hash: str
    command: str
    session_id: str | None
    data: Raw
    accepted_at: datetime
    scopes: list[Scope]
    session_glob: str | None = None
    waits: bool = False
    ruling: Ruling | None = None
    """Of a dead letter that comes again: the one entry that may meet its own delivery."""
    ignored: str = ""
    """Why it is no command: then it has none, and is only kept as a delivery."""
    by_content: bool = False
    """Whether the delivery id is made from the content, so that it is a repeat for REPEAT_SECONDS only."""
    is_unnamed: bool = False
    """Its sender gave no delivery id, so that only the content can tell a repeat."""
    names_session: bool = False
    """The session_id was made from the title."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a delivery that waits in the inbox, without Postgres."""

    command: str
    session_id: str | None
    accepted_at: datetime


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a delivery: the HTTP status and the body for a sender that waits."""

    status: int
    body: Raw
    accepted_at: datetime | None = None
    """When the entry of this outcome was accepted: a redelivery does not get the outcome of an earlier attempt."""


class Announcement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is published on OUTCOME_CHANNEL when a sender waits: a small outcome, or that one is kept under the key."""

    key: str
    outcome: Outcome | None = None


def make_entry(submission: Submission, **origin: Any) -> Entry:
    """An entry for a submission; `origin` gives source, delivery_id, accepted_at, scopes, session_glob, waits,
    is_unnamed."""
    return Entry(
        hash=submission.hash,
        command=name_of(submission.command),
        session_id=submission.session_id,
        data=Raw(msgspec.json.encode(submission.command)),
        by_content=submission.by_content,
        names_session=submission.names_session,
        **origin,
    )


def shard_of(session_id: str | None) -> int:
    """The shard of a session; what belongs to none is in shard 0."""
    return zlib.crc32(session_id.encode()) % SHARDS if session_id else 0


def inbox_key(shard: int) -> str:
    """The stream of a shard."""
    return f"sr:inbox:{shard:02d}"


def shard_of_key(key: bytes) -> int:
    """The shard whose stream has this key."""
    return int(key[-2:])


def wake_key(shard: int) -> str:
    """Present while a drain of the shard is on its way."""
    return f"sr:wake:{shard:02d}"


def seen_key(source: str, delivery_id: str) -> str:
    """Present since a delivery was accepted; without expiry until it was applied."""
    return f"sr:seen:{source}:{delivery_id}"


def outcome_key(source: str, delivery_id: str, content_hash: str) -> str:
    """The outcome for a sender that waits, until that has got it, or for a minute.

    With the content in the key, since two commands under one delivery id have different outcomes.
    """
    return f"sr:outcome:{source}:{delivery_id}:{content_hash[:16]}"


def push_arguments(entries: Sequence[Entry]) -> tuple[list[str], list[str | bytes]]:
    """Keys and arguments of PUSH_SCRIPT for these entries."""
    keys: list[str] = []
    arguments: list[str | bytes] = []
    for entry in entries:
        shard = shard_of(entry.session_id)
        keys += [seen_key(entry.source, entry.delivery_id), inbox_key(shard), wake_key(shard)]
        keys += [BACKLOG_KEY, BACKLOG_BYTES_KEY]
        receipt = Receipt(command=entry.command, session_id=entry.session_id, accepted_at=entry.accepted_at)
        waits = "1" if entry.waits or entry.ruling else "0"
        since = format_utc(entry.accepted_at - REPEAT_WINDOW) if entry.by_content else ""
        arguments += [entry.hash, msgspec.json.encode(receipt), waits, entry.source, msgspec.json.encode(entry), since]
    return keys, arguments


def decode_receipt(value: bytes) -> Receipt:
    """The receipt in the value of a seen key, which follows the hash."""
    return msgspec.json.decode(value[64:], type=Receipt)


def decode_outcome(value: bytes) -> Outcome:
    """The outcome as it is kept, behind what it takes and whose share that is."""
    return msgspec.json.decode(value.partition(b"\n")[2] or value, type=Outcome)
