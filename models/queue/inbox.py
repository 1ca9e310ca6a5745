"""The inbox in Redis, as all processes agree on it: its keys, its entries, and the outcomes of those.

A shard is a stream; all commands of a session are in one shard, in the order in which they were accepted. Pushing is
the relay's work, draining and acknowledging the worker's.
"""

from __future__ import annotations

import zlib
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import Raw

from models.commands.content_ids import REPEAT_SECONDS
from models.commands.definitions import name_of
from models.commands.payloads import Submission
from models.field_types import Scope

SHARDS = 16
"""At most this many workers drain at a time."""
WAKE_SECONDS = 5
"""How long a shard counts as woken: as long as one drain job may go on."""
OUTCOME_SECONDS = 60
"""How long an outcome is kept that no waiting sender has got yet."""
PERMITTED_MEMORY = 0.7
"""Of `maxmemory`, for what senders make Redis hold; workers need the rest to start and to drain."""
ENTRY_BYTES = 1_000
"""What an entry takes in Redis beside its text, the mark of its delivery among it: 550 to 700 bytes were measured, and
up to 3 % more for large ones."""

ENTRY_FIELD = b"e"
OUTCOME_CHANNEL = "sr:outcomes"
"""All outcomes that somebody waits for, each as an OutcomeMessage."""
BACKLOG_KEY = "sr:backlog"
"""How many entries of each source wait, in all shards together. Who has none is not in it."""
BACKLOG_BYTES_KEY = "sr:backlog:bytes"
"""How many bytes these take, ENTRY_BYTES for each included."""
JOURNAL_CHANNEL = "sr:journal"
"""The ids of sessions whose journal has grown, one to a line."""

REPEAT_WINDOW = timedelta(seconds=REPEAT_SECONDS)

RELEASE_LUA = """
local function release(key)
  local head = redis.call('GETRANGE', key, 0, 511)
  local size, share = string.match(head, '^(%d+) ([^\\n]+)\\n')
  redis.call('DEL', key)
  if size and redis.call('EXISTS', share) == 1 then redis.call('DECRBY', share, size) end
end
"""
"""Deletes a kept outcome and gives its size back to the share of its source."""

RELEASE_SCRIPT = f"""#!lua flags=allow-oom
{RELEASE_LUA}
for _, key in ipairs(KEYS) do release(key) end
"""
"""Deletes kept outcomes: KEYS. Relays run it for those that were passed on, workers for those of deleted sessions."""


class DeadLetterResolution(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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
    resolution: DeadLetterResolution | None = None
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


class OutcomeMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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


def drain_pending_key(shard: int) -> str:
    """Present while a drain of the shard is on its way."""
    return f"sr:wake:{shard:02d}"


def dedup_key(source: str, delivery_id: str) -> str:
    """Present since a delivery was accepted; without expiry until it was applied."""
    return f"sr:seen:{source}:{delivery_id}"


def outcome_key(source: str, delivery_id: str, content_hash: str) -> str:
    """The outcome for a sender that waits, until that has got it, or for a minute.

    With the content in the key, since two commands under one delivery id have different outcomes.
    """
    return f"sr:outcome:{source}:{delivery_id}:{content_hash[:16]}"


def seen_value(entry: Entry) -> bytes:
    """What a seen key holds: the hash of the content, by which a conflict is told, and the receipt."""
    return entry.hash.encode() + msgspec.json.encode(receipt_of(entry))


def receipt_of(entry: Entry) -> Receipt:
    """The receipt of an entry that was accepted for the first time."""
    return Receipt(command=entry.command, session_id=entry.session_id, accepted_at=entry.accepted_at)


def decode_receipt(value: bytes) -> Receipt:
    """The receipt in the value of a seen key, which follows the hash."""
    return msgspec.json.decode(value[64:], type=Receipt)


def decode_outcome(value: bytes) -> Outcome:
    """The outcome as it is kept, behind what it takes and whose share that is."""
    return msgspec.json.decode(value.partition(b"\n")[2] or value, type=Outcome)
