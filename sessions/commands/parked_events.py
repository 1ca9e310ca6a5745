"""Rejections because of a session's state: their codes, the senders whose events are kept for replay, and the
limits."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from models.errors import OUT_OF_TIME_CODES, Conflict, NotFound
from models.queue.inbox import Entry
from sessions.commands.read_time_budget import exhausted
from sessions.commands.store import Store
from sessions.rules.event_log import PriorDelivery

logger = logging.getLogger(__name__)

STATE_CODES = frozenset({"session_completed", "session_not_found", "session_paused"})
"""Such a rejection does not bind its delivery id: the state may change, and the delivery is then decided anew."""
UNBOUND_CODES = STATE_CODES | {exhausted().code}
"""All rejections that do not bind their delivery id; a read that ran out of time may succeed later."""
UNTRACED_CODES = frozenset({"claim_lost", *OUT_OF_TIME_CODES})
"""Rejections that say nothing about the session, so its journal omits them."""
UNATTENDED = frozenset({"hook", "send"})
"""The scopes of hooks and of signing secrets: such senders cannot correct an event."""
MAX_EVENTS = 1_000
MAX_BYTES = 64 * 1_048_576
"""Limit of the events kept for one source, as Postgres stores them; further events are rejected without being kept.
Shards count on their own, so that several at once may exceed it by what each adds in one transaction."""


def is_unattended(entry: Entry) -> bool:
    """Check whether the sender can neither correct nor repeat what was rejected; the sender of a dead letter was asked
    not to."""
    return entry.resolution is not None or UNATTENDED.issuperset(entry.scopes)


def binds(known: PriorDelivery) -> bool:
    """Check whether a delivery id stands for its decision, or the same delivery is to be decided anew."""
    if known.status == "rejected" and known.response is None:
        return known.http_status not in (NotFound.status, Conflict.status)  # Its session was deleted.
    return known.status != "parked" and not (known.status == "rejected" and code_of(known.response) in UNBOUND_CODES)


def is_open(delivery: Mapping[str, Any]) -> bool:
    """Check whether a delivery, as it is shown, was rejected for a transient reason, so that it may be sent again."""
    return delivery["status"] == "parked" or (
        delivery["status"] == "rejected" and code_of(delivery.get("error")) in UNBOUND_CODES
    )


def code_of(response: Raw | None) -> str | None:
    """The code of the error in a recorded response; None without an error, or if it was deleted with its session."""
    if response is None:
        return None
    try:
        return msgspec.json.decode(response, type=_ErrorResponse).error.code
    except msgspec.ValidationError:
        return None


class Parking:
    """The capacity that sources have left for kept events, in one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._taken: dict[str, tuple[int, int]] = {}
        self._full: set[str] = set()

    def park(self, entry: Entry, *, is_kept: bool) -> Raw | None:
        """The event as it is to be kept; None if its source has no capacity left, unless the event is already kept."""
        kept = msgspec.json.encode(msgspec.structs.replace(entry, waits=False, client=""))
        if is_kept:
            return Raw(kept)
        count, size = self._taken.get(entry.source) or self._store.parked_by(entry.source)
        if count >= MAX_EVENTS or size + len(kept) > MAX_BYTES:
            if entry.source not in self._full:
                logger.warning(
                    "Events of %s are now rejected without being kept: too many are waiting for replay.", entry.source
                )
            self._full.add(entry.source)
            return None
        self._taken[entry.source] = (count + 1, size + len(kept))
        return Raw(kept)


class _Error(msgspec.Struct):
    code: str


class _ErrorResponse(msgspec.Struct):
    error: _Error
