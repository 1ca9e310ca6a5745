"""Records what a transaction does not apply: rejected, kept and ignored commands, and dead letters."""

from __future__ import annotations

import logging
import traceback
from datetime import UTC, datetime

import msgspec
from msgspec import Raw

from models.commands.responses import failure
from models.errors import Forbidden, NotFound, Rejected, RelayError
from models.queue.inbox import Entry
from sessions.commands.parked_events import STATE_CODES, UNBOUND_CODES, UNTRACED_CODES, Parking, is_unattended
from sessions.commands.pending_writes import PendingWrites
from sessions.commands.store import StatementFailed, Store
from sessions.reads.not_found import suggest
from sessions.responses.recorded_responses import recorded
from sessions.rules.event_log import ApplyResult, make_event

logger = logging.getLogger(__name__)

KEPT = "The event is kept: once the session accepts changes again, replay it or send it again."
NOT_KEPT = "Too many events of this sender are already kept; send it again once the session accepts changes."
TRACE_LENGTH = 8_000
"""Characters that are kept of a traceback, the last ones: its error may quote the whole input, and RQ keeps it too."""
SUGGESTIONS = 10
"""Per transaction: searching for similar ids costs some milliseconds each."""


class Refusals:
    """Records refused entries in the pending writes of a transaction."""

    def __init__(self, store: Store, writes: PendingWrites) -> None:
        self._store = store
        self._writes = writes
        self._suggestions = SUGGESTIONS
        self._parking = Parking(store)

    def clear(self) -> None:
        """Forget which events were kept, after a savepoint was rolled back."""
        self._parking = Parking(self._store)

    def reject(self, entry: Entry, error: Rejected, now: datetime, *, is_kept: bool = False) -> ApplyResult:
        """Record a rejection, or keep the event of a sender that cannot correct it. `is_kept`: it is kept already."""
        if error.code == "session_not_found" and entry.session_id and self._suggestions:
            self._suggestions -= 1
            self._writes.flush()
            similar = self._store.nearest_sessions(entry.session_id, session_glob=entry.session_glob)
            if similar and isinstance(error, NotFound):
                error.hint = f"{suggest(similar)} Otherwise create it with create_session."
        kept = None
        if error.code in STATE_CODES and is_unattended(entry):
            kept = self._parking.park(entry, is_kept=is_kept)
            error.hint = KEPT if kept else NOT_KEPT
        rejected = failed(entry, error, status="parked" if kept else "rejected", now=now)
        rejected = msgspec.structs.replace(rejected, binds=error.code not in UNBOUND_CODES)
        self._writes.record(
            entry,
            status=rejected.status,
            http_status=error.status,
            response=recorded(rejected.response, command=entry.command, http_status=error.status),
            now=now,
            kept=kept,
        )
        # Senders without permission, with an invalid claim or with too many reads leave no trace in a session.
        is_traced = not isinstance(error, Forbidden) and error.code not in UNTRACED_CODES
        if entry.session_id and self._writes.state.session(entry.session_id) and is_traced:
            ids = {"code": error.code, **({"kept": True} if kept else {})}
            self._writes.events.append(make_event(entry, entry.command, "rejected", error.message, ids))
        return rejected

    def ignore(self, entry: Entry, now: datetime) -> ApplyResult:
        """Record that the entry arrived, and why it was ignored."""
        reason = Raw(msgspec.json.encode(entry.ignored))
        self._writes.record(entry, status="ignored", http_status=202, response=reason, now=now)
        return ApplyResult(entry=entry, status="ignored", http_status=202, response=reason)

    def dead_letter(self, entry: Entry, error: Exception) -> ApplyResult:
        """Make a dead letter of an entry that raised an unexpected error."""
        now = datetime.now(UTC)
        logger.error("Delivery %s of %s is a dead letter: %s", entry.delivery_id, entry.source, type(error).__name__)
        fault = RelayError(
            "A fault in the relay kept this command from being applied; it is stored, and an operator can replay it.",
            code="dead_letter",
            hint=f"Do not send it again. GET /v1/deliveries/{entry.delivery_id} shows its outcome.",
        )
        # The cause of a failed statement may quote the content to be stored.
        lines = traceback.format_exception(error, chain=not isinstance(error, StatementFailed))
        trace = "".join(lines)[-TRACE_LENGTH:]
        result = msgspec.structs.replace(failed(entry, fault, status="failed", now=now), trace=trace)
        self._writes.record(
            entry,
            status="failed",
            http_status=fault.status,
            response=result.response,
            now=now,
            kept=Raw(msgspec.json.encode(msgspec.structs.replace(entry, client=""))),
            trace=trace,
        )
        if entry.session_id and self._writes.state.session(entry.session_id):
            self._writes.events.append(make_event(entry, entry.command, "failed", fault.message, {"code": fault.code}))
        return result


def failed(entry: Entry, error: RelayError, *, status: str, now: datetime) -> ApplyResult:
    """Build the result of an entry that was not applied."""
    body = failure(error, command=entry.command, session_id=entry.session_id, delivery_id=entry.delivery_id, now=now)
    response = Raw(msgspec.json.encode(body))
    return ApplyResult(entry=entry, status=status, http_status=error.status, response=response)  # type: ignore[arg-type]
