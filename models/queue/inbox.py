"""The format of the inbox in Redis: keys, entries and outcomes.

Each shard is a stream. All commands of a session are in one shard, in the order in which they were accepted. The relay
pushes entries; workers drain and acknowledge them.
"""

from __future__ import annotations

import zlib
from datetime import datetime, timedelta

import msgspec
from msgspec import Raw

from models.commands.content_ids import REPEAT_SECONDS
from models.commands.definitions import name_of
from models.commands.payloads import Submission
from models.field_types import Scope

SHARDS = 16
"""The maximum number of workers that drain at a time."""
WAKE_SECONDS = 5
"""Expiry of the pending mark of a shard's drain: the maximum duration of a drain job."""
OUTCOME_SECONDS = 60
"""Expiry of an outcome that no waiting sender has received."""
PERMITTED_MEMORY = 0.7
"""The share of `maxmemory` for data of senders; workers need the rest to start and to drain."""
ENTRY_BYTES = 1_000
"""Memory of an entry in Redis besides its text, including its dedup key: 550 to 700 bytes measured, and up to 3 % more
for large entries."""

ENTRY_FIELD = b"e"
OUTCOME_CHANNEL = "sr:outcomes"
"""The channel of OutcomeMessages for waiting senders."""
BACKLOG_KEY = "sr:backlog"
"""A hash from each source to the number of its waiting entries in all shards, without zeros."""
BACKLOG_BYTES_KEY = "sr:backlog:bytes"
"""A hash from each source to the bytes of its waiting entries, including ENTRY_BYTES for each."""
JOURNAL_CHANNEL = "sr:journal"
"""The channel of the ids of sessions with new events, one per line."""

REPEAT_WINDOW = timedelta(seconds=REPEAT_SECONDS)

RELEASE_LUA = """
local function release(key)
  local head = redis.call('GETRANGE', key, 0, 511)
  local size, share = string.match(head, '^(%d+) ([^\\n]+)\\n')
  redis.call('DEL', key)
  if size and redis.call('EXISTS', share) == 1 then redis.call('DECRBY', share, size) end
end
"""
"""Deletes a kept outcome and subtracts its size from the quota of its source."""

RELEASE_SCRIPT = f"""#!lua flags=allow-oom
{RELEASE_LUA}
for _, key in ipairs(KEYS) do release(key) end
"""
"""Deletes the outcomes in KEYS. Relays run it for delivered outcomes, workers for those of deleted sessions."""


class DeadLetterResolution(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An operator's decision on a dead letter: replay or discard."""

    by: str
    at: datetime
    discards: bool = False


Identity = tuple[str, str]
"""Source and delivery id."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A command in the inbox, with the permissions that its sender had when it was accepted."""

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
    """Set for a dead letter that is pushed again: only this entry may replace its earlier delivery."""
    ignored: str = ""
    """The reason why the event does not contain a command; the entry is then only recorded as a delivery."""
    by_content: bool = False
    """The delivery id is derived from the content, so that it identifies repeats for REPEAT_SECONDS only."""
    is_unnamed: bool = False
    """The sender gave no delivery id, so that only the content identifies repeats."""
    names_session: bool = False
    """The session_id is derived from the title."""
    client: str = ""
    """The client's address, for the log of the worker; never stored in Postgres."""
    traceparent: str = ""
    """The span of the push (W3C Trace Context), if it is traced."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a waiting delivery that is available without Postgres."""

    command: str
    session_id: str | None
    accepted_at: datetime


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a delivery: the HTTP status and body for a waiting sender."""

    status: int
    body: Raw
    accepted_at: datetime | None = None
    """The time the entry was accepted, so that a redelivery does not receive the outcome of an earlier attempt."""


class OutcomeMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message on OUTCOME_CHANNEL for a waiting sender: a small outcome itself, or only the key of a kept one."""

    key: str
    outcome: Outcome | None = None


def make_entry(
    submission: Submission,
    *,
    source: str,
    delivery_id: str,
    accepted_at: datetime,
    scopes: list[Scope],
    session_glob: str | None = None,
    waits: bool = False,
    resolution: DeadLetterResolution | None = None,
    client: str = "",
    is_unnamed: bool = False,
) -> Entry:
    """Create the entry of a submission."""
    return Entry(
        source=source,
        delivery_id=delivery_id,
        hash=submission.hash,
        command=name_of(submission.command),
        session_id=submission.session_id,
        data=Raw(msgspec.json.encode(submission.command)),
        accepted_at=accepted_at,
        scopes=scopes,
        session_glob=session_glob,
        waits=waits,
        resolution=resolution,
        by_content=submission.by_content,
        is_unnamed=is_unnamed,
        names_session=submission.names_session,
        client=client,
    )


def shard_of(session_id: str | None) -> int:
    """Return the shard of a session; shard 0 for commands without a session."""
    return zlib.crc32(session_id.encode()) % SHARDS if session_id else 0


_INBOX_KEYS = [f"sr:inbox:{shard:02d}" for shard in range(SHARDS)]
_DRAIN_PENDING_KEYS = [f"sr:wake:{shard:02d}" for shard in range(SHARDS)]


def inbox_key(shard: int) -> str:
    """Return the key of a shard's stream."""
    return _INBOX_KEYS[shard]


def shard_of_key(key: bytes) -> int:
    """Return the shard whose stream has this key."""
    return int(key[-2:])


def drain_pending_key(shard: int) -> str:
    """Return the key that exists while a drain of the shard is enqueued."""
    return _DRAIN_PENDING_KEYS[shard]


def dedup_key(source: str, delivery_id: str) -> str:
    """Return the key that exists since a delivery was accepted. It does not expire until the delivery is applied."""
    return f"sr:seen:{source}:{delivery_id}"


def outcome_key(source: str, delivery_id: str, content_hash: str) -> str:
    """Return the key of an outcome for a waiting sender, kept until it is delivered, or for OUTCOME_SECONDS.

    It includes the content's hash, since two commands with the same delivery id have different outcomes.
    """
    return f"sr:outcome:{source}:{delivery_id}:{content_hash[:16]}"


def seen_value(entry: Entry) -> bytes:
    """Return the value of a dedup key: the hash of the content, which identifies conflicts, and the receipt."""
    return entry.hash.encode() + msgspec.json.encode(receipt_of(entry))


def receipt_of(entry: Entry) -> Receipt:
    """Return the receipt of an entry that was accepted for the first time."""
    return Receipt(command=entry.command, session_id=entry.session_id, accepted_at=entry.accepted_at)


def decode_receipt(value: bytes) -> Receipt:
    """Decode the receipt in the value of a dedup key, where it follows the hash."""
    return msgspec.json.decode(value[64:], type=Receipt)


def decode_outcome(value: bytes) -> Outcome:
    """Decode a kept outcome, which follows a line with its size and the quota key of its source."""
    return msgspec.json.decode(value.partition(b"\n")[2] or value, type=Outcome)
