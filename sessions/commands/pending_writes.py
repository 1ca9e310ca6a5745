"""The changes of a transaction that are not in the store yet."""

from __future__ import annotations

from datetime import datetime

from msgspec import Raw

from models.queue.inbox import Entry, Identity
from sessions.commands.store import Store
from sessions.rules.event_log import Delivery, Event
from sessions.rules.state import State


class PendingWrites:
    """The state of the sessions as a transaction has changed it, its decided deliveries, and its journal events."""

    def __init__(self, store: Store) -> None:
        self.state = State()
        self.events: list[Event] = []
        self._store = store
        self._deliveries: dict[Identity, Delivery] = {}

    def clear(self) -> None:
        """Forget all changes, after a savepoint was rolled back."""
        self.state, self.events, self._deliveries = State(), [], {}

    def record(
        self,
        entry: Entry,
        *,
        status: str,
        http_status: int,
        response: Raw | None,
        now: datetime,
        kept: Raw | None = None,
        trace: str | None = None,
    ) -> None:
        """Record the decision of a delivery."""
        self._deliveries[identity_of(entry)] = Delivery(
            source=entry.source,
            delivery_id=entry.delivery_id,
            hash=entry.hash,
            status=status,  # type: ignore[arg-type]
            command=entry.command,
            session_id=entry.session_id,
            accepted_at=entry.accepted_at,
            decided_at=now,
            http_status=http_status,
            response=response,
            entry=kept,
            traceback=trace,
        )

    def flush(self, *, journal: bool = False) -> None:
        """Write pending changes; the journal only at the end, because its lock is taken last."""
        changes = self.state.take_changes()
        events = self.events if journal else []
        if changes.put or changes.removed or self._deliveries or events:
            self._store.write(changes, list(self._deliveries.values()), events)
        self._deliveries = {}
        if journal:
            self.events = []


def identity_of(entry: Entry) -> Identity:
    """Return the source and delivery id of an entry."""
    return entry.source, entry.delivery_id
