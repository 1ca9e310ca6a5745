"""What is recorded of each command: its delivery, and its entries in the session's journal."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec
from msgspec import Raw

from models.field_types import DeliveryStatus
from models.queue.inbox import Entry
from models.timestamps import format_utc
from sessions.rules.records import EMPTY_OBJECT

EventStatus = Literal["applied", "rejected", "failed"]

EVENT_FIELDS = frozenset(
    {
        "agent_name",
        "artifact_id",
        "chunk_id",
        "code",
        "created",
        "kept",
        "key",
        "memory_keys",
        "revision",
        "task_id",
        "type",
    }
)
"""What of an answer goes into the journal: ids and kinds, no content."""

REPLAYABLE: tuple[DeliveryStatus, ...] = ("failed", "parked")
"""The deliveries that are kept with all that came: dead letters, and events that a session did not take."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An entry in a session's journal: which command, what became of it, and the ids it concerns."""

    session_id: str
    event: str
    status: EventStatus
    delivery_id: str | None
    source: str
    message: str
    created_at: datetime
    data: Raw = EMPTY_OBJECT


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one delivery."""

    source: str
    delivery_id: str
    hash: str
    status: DeliveryStatus
    command: str
    session_id: str | None
    accepted_at: datetime
    decided_at: datetime
    http_status: int
    response: Raw | None = None
    entry: Raw | None = None
    traceback: str | None = None


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """The last change of a session by a command, agents' reports aside: what a repeat repeats."""

    source: str
    hash: str
    at: datetime
    response: Raw


class PriorDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that was decided before."""

    hash: str
    status: DeliveryStatus
    http_status: int
    response: Raw | None
    accepted_at: datetime

    @classmethod
    def of(cls, applied: ApplyResult) -> PriorDelivery:
        """Return what was decided a moment ago."""
        return cls(
            hash=applied.entry.hash,
            status=applied.status,  # type: ignore[arg-type]
            http_status=applied.http_status,
            response=applied.response,
            accepted_at=applied.entry.accepted_at,
        )


class ApplyResult(msgspec.Struct, frozen=True, kw_only=True):
    """What applying an entry led to."""

    entry: Entry
    status: Literal["applied", "rejected", "parked", "failed", "ignored", "duplicate", "conflict"]
    http_status: int
    response: Raw
    redacted: Raw | None = None
    """The response for its sender, who waits and may not read all of it."""
    binds: bool = True
    """Whether its delivery id stands for this from now on; otherwise the same delivery is judged anew."""
    trace: str = ""
    """Of a dead letter: what was raised."""


def make_event(entry: Entry, command: str, status: EventStatus, message: str, data: Mapping[str, object]) -> Event:
    """The journal's entry for one command of a delivery; of `data` it keeps the ids. That of a dead letter which came
    again tells who wanted that, and when."""
    ids = {name: value for name, value in data.items() if name in EVENT_FIELDS}
    if entry.resolution:
        word = "discarded" if entry.resolution.discards else "replayed"
        ids |= {f"{word}_by": entry.resolution.by, f"{word}_at": format_utc(entry.resolution.at)}
    return Event(
        session_id=entry.session_id or "",
        event=command,
        status=status,
        delivery_id=entry.delivery_id,
        source=entry.source,
        message=message,
        data=Raw(msgspec.json.encode(ids)),
        created_at=datetime.now(UTC),
    )
