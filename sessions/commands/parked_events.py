"""Rejections because of a session's state: which they are, whose events are kept for a replay, and how many."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from models.errors import Conflict, NotFound
from models.queue.inbox import Entry
from sessions.commands.batches import OUT_OF_TIME_CODES
from sessions.commands.read_time_budget import exhausted
from sessions.commands.store import Store
from sessions.rules.event_log import PriorDelivery

logger = logging.getLogger(__name__)

STATE_CODES = frozenset({"session_completed", "session_not_found", "session_paused"})
"""Such a rejection does not bind its delivery id: the state may change, and the delivery is judged anew."""
UNBOUND_CODES = STATE_CODES | {exhausted().code}
"""All such rejections; when there was no time for a read there may be later."""
UNTRACED_CODES = frozenset({"claim_lost", *OUT_OF_TIME_CODES})
"""Such a rejection is no news of the session, so its journal does not have it."""
UNATTENDED = frozenset({"hook", "send"})
"""The scopes of hooks and of signing secrets: nobody is there who could mend anything."""
MAX_EVENTS = 1_000
MAX_BYTES = 64 * 1_048_576
"""Of the events that are kept for one source, as Postgres stores them; more are rejected without being kept. Shards
count by themselves, so that several at a time may exceed it by what each of them takes in one transaction."""


def is_unattended(entry: Entry) -> bool:
    """Whether the sender can neither mend nor repeat what was rejected; of a dead letter it was told not to."""
    return entry.resolution is not None or UNATTENDED.issuperset(entry.scopes)


def binds(known: PriorDelivery) -> bool:
    """Whether a delivery id stands for what was decided under it, or the same delivery is to be judged anew."""
    if known.status == "rejected" and known.response is None:
        return known.http_status not in (NotFound.status, Conflict.status)  # Its session was deleted.
    return known.status != "parked" and not (known.status == "rejected" and code_of(known.response) in UNBOUND_CODES)


def is_open(delivery: Mapping[str, Any]) -> bool:
    """Whether a delivery, as it is shown, was not taken for a reason that passes, so that it may come again."""
    return delivery["status"] == "parked" or (
        delivery["status"] == "rejected" and code_of(delivery.get("error")) in UNBOUND_CODES
    )


def code_of(response: Raw | None) -> str | None:
    """The code of the error in a recorded response; None if there is none, or it was deleted with its session."""
    if response is None:
        return None
    try:
        return msgspec.json.decode(response, type=_Refused).error.code
    except msgspec.ValidationError:
        return None


class Parking:
    """The room that sources have left for events to be kept, in one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._taken: dict[str, tuple[int, int]] = {}
        self._full: set[str] = set()

    def park(self, entry: Entry, *, is_kept: bool) -> Raw | None:
        """What is to be kept of an event; None if its source has no room left, unless it is kept already."""
        kept = msgspec.json.encode(msgspec.structs.replace(entry, waits=False))
        if is_kept:
            return Raw(kept)
        count, size = self._taken.get(entry.source) or self._store.parked_by(entry.source)
        if count >= MAX_EVENTS or size + len(kept) > MAX_BYTES:
            if entry.source not in self._full:
                logger.warning("Events of %s are not kept any more: too many wait for a replay.", entry.source)
            self._full.add(entry.source)
            return None
        self._taken[entry.source] = (count + 1, size + len(kept))
        return Raw(kept)


class _Error(msgspec.Struct):
    code: str


class _Refused(msgspec.Struct):
    error: _Error
