"""Records of each command: its delivery, and its entries in the session's journal."""

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
"""Fields of a response that enter the journal: ids and kinds, no content."""

REPLAYABLE: tuple[DeliveryStatus, ...] = ("failed", "parked")
"""Statuses of deliveries that are kept with all their content: dead letters, and events that a session did not
accept."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An entry in a session's journal: the command, its outcome, and the ids that it concerns."""

    session_id: str
    event: str
    status: EventStatus
    delivery_id: str | None
    source: str
    message: str
    created_at: datetime
    data: Raw = EMPTY_OBJECT


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one delivery."""

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
    """The last change of a session, agents' commands aside, for recognizing repeats."""

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
        """The delivery that was just decided."""
        return cls(
            hash=applied.entry.hash,
            status=applied.status,  # type: ignore[arg-type]
            http_status=applied.http_status,
            response=applied.response,
            accepted_at=applied.entry.accepted_at,
        )


class ApplyResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of applying an entry."""

    entry: Entry
    status: Literal["applied", "rejected", "parked", "failed", "ignored", "duplicate", "conflict"]
    http_status: int
    response: Raw
    redacted: Raw | None = None
    """The response for a sender that waits and may not read all of it."""
    binds: bool = True
    """True if the delivery id stands for this result from now on; otherwise the same delivery is decided anew."""
    trace: str = ""
    """The traceback of a dead letter."""


def make_event(entry: Entry, command: str, status: EventStatus, message: str, data: Mapping[str, object]) -> Event:
    """The journal entry for one command of a delivery; of `data` it keeps the ids. For a replayed or discarded dead
    letter it adds the operator and the time."""
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
