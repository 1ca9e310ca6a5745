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

from models.commands import name_of
from models.identity import REPEAT_SECONDS
from models.payloads import Submission
from models.timestamps import format_utc
from models.vocabulary import Scope

SHARDS = 16
"""At most this many workers drain at a time."""
WAKE_SECONDS = 5
"""How long a shard counts as woken: as long as one drain job may go on."""
SEEN_SECONDS = 86_400
"""How long the relay itself recognizes a repeated delivery after it was applied; then Postgres does."""
OUTCOME_SECONDS = 60
"""How long a waiting sender can fetch an outcome whose announcement it missed."""
RESULT_SECONDS = 3_600
"""How long the result of a read is kept; it is content, so it goes nowhere else."""

ENTRY_FIELD = b"e"
OUTCOME_CHANNEL = "sr:outcomes"
"""All outcomes that somebody waits for, each as an Announcement."""
BACKLOG_KEY = "sr:backlog"
"""How many entries of each source wait, in all shards together. Who has none is not in it."""
JOURNAL_CHANNEL = "sr:journal"
"""The ids of sessions whose journal has grown, one to a line."""

REPEAT_WINDOW = timedelta(seconds=REPEAT_SECONDS)

PUSH_SCRIPT = """
local receipts, woken = {}, {}
for i = 0, #KEYS / 4 - 1 do
  local seen, stream, wake, backlog = unpack(KEYS, 4 * i + 1, 4 * i + 4)
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
    if redis.call('SET', wake, '1', 'NX', 'EX', WAKE_SECONDS) then woken[#woken + 1] = stream end
    receipts[i + 1] = {known and 'duplicate' or 'accepted', known and string.sub(known, 65) or receipt}
  end
end
return {receipts, woken}
""".replace("WAKE_SECONDS", str(WAKE_SECONDS))
"""Pushes entries, each once: four keys and six arguments an entry, see `push_arguments`. Returns for each entry what
it was and the receipt in force, and the streams of the shards to wake. A duplicate whose sender waits is pushed again:
the worker drops it, and answers. What is known from before the moment of the last argument, if there is one, is another
event with the same content."""

TAKE_OUT_SCRIPT = """
local gone = {}
for i = 1, #ARGV, 2 do
  local id, source = ARGV[i], ARGV[i + 1]
  if redis.call('XDEL', KEYS[1], id) == 1 then gone[source] = (gone[source] or 0) + 1 end
end
for source, count in pairs(gone) do
  if redis.call('HINCRBY', KEYS[2], source, -count) <= 0 then redis.call('HDEL', KEYS[2], source) end
end
"""
"""Deletes entries of a stream and counts down the backlogs of their sources by those that it really deleted, so that it
may be repeated: KEYS stream and BACKLOG_KEY, ARGV the id and the source of each."""

CLEAR_BACKLOG_SCRIPT = """
for i = 2, #KEYS do
  if redis.call('XLEN', KEYS[i]) > 0 then return 0 end
end
return redis.call('DEL', KEYS[1])
"""
"""Forgets all backlogs if nothing waits: KEYS BACKLOG_KEY and all streams. Says whether there was one."""

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
    """When the entry was accepted of which this is the outcome: one of before is none for a redelivery."""


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """What is published on OUTCOME_CHANNEL when a sender waits."""

    key: str
    outcome: Outcome


def make_entry(submission: Submission, **origin: Any) -> Entry:
    """An entry for a submission; `origin` gives source, delivery_id, accepted_at, scopes, session_glob, waits."""
    return Entry(
        hash=submission.hash,
        command=name_of(submission.command),
        session_id=submission.session_id,
        data=Raw(msgspec.json.encode(submission.command)),
        by_content=submission.by_content,
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
    """The outcome for a sender that waits, for a minute; the result of a read, for an hour.

    With the content in the key, since two commands under one delivery id have different outcomes.
    """
    return f"sr:outcome:{source}:{delivery_id}:{content_hash[:16]}"


def push_arguments(entries: Sequence[Entry]) -> tuple[list[str], list[str | bytes]]:
    """Keys and arguments of PUSH_SCRIPT for these entries."""
    keys: list[str] = []
    arguments: list[str | bytes] = []
    for entry in entries:
        shard = shard_of(entry.session_id)
        keys += [seen_key(entry.source, entry.delivery_id), inbox_key(shard), wake_key(shard), BACKLOG_KEY]
        receipt = Receipt(command=entry.command, session_id=entry.session_id, accepted_at=entry.accepted_at)
        waits = "1" if entry.waits or entry.ruling else "0"
        since = format_utc(entry.accepted_at - REPEAT_WINDOW) if entry.by_content else ""
        arguments += [entry.hash, msgspec.json.encode(receipt), waits, entry.source, msgspec.json.encode(entry), since]
    return keys, arguments


def decode_receipt(value: bytes) -> Receipt:
    """The receipt in the value of a seen key, which follows the hash."""
    return msgspec.json.decode(value[64:], type=Receipt)
