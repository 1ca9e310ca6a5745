"""The session manager: applies entries in order, inside one transaction of a store.

It detects duplicates, rejections and poison; rules decide the effect of commands, and the store records it.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Raw

from models.commands.definitions import Batch, Command, DeleteSession, ReadCommand, ResumeSession, name_of
from models.commands.payloads import decode_command
from models.commands.responses import failure, success
from models.delivery_conflict import delivery_conflict
from models.errors import Forbidden, NotFound, Rejected, RelayError, Unavailable
from models.queue.inbox import REPEAT_WINDOW, Entry
from sessions.commands.batches import run_batch
from sessions.commands.parked_events import STATE_CODES, UNBOUND_CODES, UNTRACED_CODES, Parking, binds, is_unattended
from sessions.commands.read_time_budget import TOGETHER_SECONDS, ReadTimeBudget, exhausted
from sessions.commands.repeated_batches import LatestChanges, answer_again
from sessions.commands.session_titles import is_taken, name_session
from sessions.commands.store import StatementFailed, Store, too_slow, value_refused
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import ReadResult
from sessions.responses.recorded_responses import recorded
from sessions.responses.redaction import redacted
from sessions.rules.decision import Context
from sessions.rules.dispatch import ReadSet, decide
from sessions.rules.event_log import REPLAYABLE, ApplyResult, Delivery, Event, PriorDelivery, make_event
from sessions.rules.records import EMPTY_OBJECT, session_key
from sessions.rules.state import State
from sessions.rules.task_access import needs_held_task, no_task_held

logger = logging.getLogger(__name__)

Identity = tuple[str, str]
"""Source and delivery id."""

TRANSACTION_SECONDS = 2.0
"""Time after which no further entry is started, so that slow reads cannot prolong a transaction endlessly."""
READ_SECONDS = 10.0
"""For all reads of one batch together."""
RESUME_SESSION = name_of(ResumeSession())
KEPT = "The event is kept: once the session accepts changes again, replay it or send it again."
NOT_KEPT = "Too many events of this sender are already kept; send it again once the session accepts changes."
TRACE_LENGTH = 8_000
"""Characters that are kept of a traceback, the last ones: its error may quote the whole input, and RQ keeps it too."""
SUGGESTIONS = 10
"""Per transaction: searching for similar ids costs some milliseconds each."""


class RetryOnce(Unavailable):
    """An entry took too long; it is retried once."""


class SessionManager:
    """Applies commands through a store. One manager serves one transaction."""

    def __init__(
        self,
        store: Store,
        *,
        seconds: float = TRANSACTION_SECONDS,
        suspect: Identity | None = None,
        reading: ReadTimeBudget | None = None,
    ) -> None:
        """`suspect` is the source and delivery id of an entry that took too long the last time; `reading` limits the
        time of reads where other senders wait for them."""
        self.slow: Identity | None = None
        """The entry that took too long this time, to be retried once as the suspect: a database that stalled for a
        while must not make a dead letter of the entry at hand."""
        self._suspect = suspect
        self._reading = reading
        self._store = store
        self._ends_at = time.monotonic() + seconds
        self._read_until = 0.0
        self._suggestions = SUGGESTIONS
        self._state = State()
        self._latest = LatestChanges(store)
        self._deliveries: dict[Identity, Delivery] = {}
        self._parking = Parking(store)
        self._events: list[Event] = []

    def apply(self, entries: Sequence[Entry]) -> list[ApplyResult]:
        """Apply entries in order, each once, and return the result of each. An entry that cannot be applied becomes a
        dead letter on its own; the others go on. When the time is up, the remaining entries are not started: the
        results are fewer than the entries, but at least one. Raises Unavailable, after which the transaction must be
        rolled back."""
        if len(entries) > 1 and any(_identity(entry) == self._suspect for entry in entries):
            return self._apply_singly(entries)
        try:
            with self._store.savepoint():
                return self._apply(entries)
        except StatementFailed as error:
            self._state, self._deliveries, self._events = State(), {}, []
            self._parking = Parking(self._store)
            if len(entries) == 1:
                if error.too_slow and _identity(entries[0]) != self._suspect:
                    self.slow = _identity(entries[0])
                    raise RetryOnce from error
                with self._store.savepoint():
                    session_id = entries[0].session_id
                    self._state = self._store.load(ReadSet(keys={session_key(session_id)} if session_id else set()))
                    applied = [redacted(self._decide_failed(entries[0], error), _decode(entries[0]))]
                    self._flush(journal=True)
                return applied
            if error.too_slow:
                return self._apply_singly(entries)
        middle = len(entries) // 2
        applied = self.apply(entries[:middle])
        if len(applied) < middle or self._is_time_up():
            return applied
        return applied + self.apply(entries[middle:])

    def _decide_failed(self, entry: Entry, error: StatementFailed) -> ApplyResult:
        """Decide an entry whose statement fails on its own: reject a value that the sender must change, else make a
        dead letter."""
        if not error.bad_value:
            return self._dead_letter(entry, error)
        logger.error("No check rejected a value of delivery %s of %s: %s", entry.delivery_id, entry.source, error)
        return self._reject(entry, value_refused(), datetime.now(UTC))

    def _apply_singly(self, entries: Sequence[Entry]) -> list[ApplyResult]:
        """Apply the entries one by one. Halving would cost the time limit of a statement at each step; the entry at
        fault now costs it once."""
        self._ends_at = time.monotonic() + TRANSACTION_SECONDS
        applied: list[ApplyResult] = []
        for entry in entries:
            try:
                applied += self.apply([entry])
            except RetryOnce:
                if not applied:
                    raise
                break
            if self._is_time_up():
                break
        return applied

    def _is_time_up(self) -> bool:
        """Check whether the transaction, or its reads, have taken too long to start a further entry."""
        return time.monotonic() > self._ends_at or (self._reading is not None and self._reading.is_over)

    def _apply(self, entries: Sequence[Entry]) -> list[ApplyResult]:
        known = self._store.known_deliveries(entries)
        decoded: list[Command | Exception] = []
        wanted = ReadSet()
        for entry in entries:
            decoded.append(_decode(entry, wanted))
            if entry.session_id and (entry.resolution or isinstance(decoded[-1], Exception)):
                wanted.keys.add(session_key(entry.session_id))  # The session's journal records any entry.
        self._latest = LatestChanges(self._store)
        self._latest.look_up(zip(entries, decoded, strict=True))
        self._state = self._store.load(wanted)
        applied: list[ApplyResult] = []
        handled: dict[Identity, PriorDelivery] = {}
        deleted: set[str | None] = set()
        for entry, item in zip(entries, decoded, strict=True):
            if applied and self._is_time_up():
                break
            identity = _identity(entry)
            earlier = handled.get(identity) or known.get(identity)
            if earlier is not None and _is_another_event(entry, earlier):
                self._flush()
                self._store.set_apart(entry, earlier.accepted_at)
                earlier = None
                handled.pop(identity, None)
            if entry.resolution and (earlier is None or entry.session_id in deleted):
                # A dead letter is deleted with its session; a new session with this id must not see it.
                outcome = ApplyResult(entry=entry, status="duplicate", http_status=200, response=EMPTY_OBJECT)
            elif earlier is None or _is_decided_anew(entry, earlier):
                outcome = self._decide(entry, item, is_kept=earlier is not None and earlier.status in REPLAYABLE)
                handled[identity] = PriorDelivery.of(outcome)
                if isinstance(item, DeleteSession) and outcome.status == "applied":
                    deleted.add(entry.session_id)
            else:
                outcome = self._repeat(entry, item, earlier)
            applied.append(redacted(outcome, item))
        self._flush(journal=True)
        return applied

    def _decide(self, entry: Entry, command: Command | Exception, *, is_kept: bool) -> ApplyResult:
        now = datetime.now(UTC)
        if entry.resolution and entry.resolution.discards:
            discarded = Rejected("The command could not be applied, and an operator discarded it.", code="discarded")
            return self._reject(entry, discarded, now)
        if entry.ignored:
            return self._ignore(entry, now)
        try:
            if isinstance(command, Exception):
                raise command
            events: list[Event] = []
            if entry.names_session and is_taken(entry, command, state=self._state):
                self._flush()
                entry = name_session(entry, command, state=self._state, store=self._store)
                self._latest.look_up([(entry, command)])
            answer = self._run(entry, command, events)
        except Rejected as error:
            return self._reject(entry, error, now, is_kept=is_kept)
        except (Unavailable, StatementFailed):
            raise
        except Exception as error:
            return self._dead_letter(entry, error)
        if entry.resolution and not events and entry.session_id and self._state.session(entry.session_id):
            events.append(make_event(entry, entry.command, "applied", answer.message, answer.data))
        response = _succeeded(entry, answer, now)
        kept = recorded(response, command=entry.command, http_status=200)
        self._record(entry, status="applied", http_status=200, response=kept, now=now)
        self._events += events
        if events:
            self._latest.remember(entry, command, response)
        return ApplyResult(entry=entry, status="applied", http_status=200, response=response)

    def _run(self, entry: Entry, command: Command, events: list[Event]) -> ReadResult:
        self._read_until = time.monotonic() + READ_SECONDS
        self._require_permission(entry, command)
        if isinstance(command, ReadCommand):
            return self._read(entry, command)
        context = Context(
            session_id=entry.session_id or "",
            source=entry.source,
            delivery_id=entry.delivery_id,
            at=entry.accepted_at,
            session_glob=entry.session_glob,
            waiting_events=self._count_waiting_events(entry, command),
            is_unnamed=entry.is_unnamed and not entry.resolution,
        )
        if said := self._latest.find_repeated(entry, command):
            return answer_again(said)
        if isinstance(command, Batch):
            return self._run_batch(entry, command, context, events)
        decision = decide(self._state, command, context)
        if isinstance(command, DeleteSession):
            self._flush()  # Deleting clears the recorded responses of earlier deliveries.
            self._latest.forget(context.session_id)
            self._events = [event for event in self._events if event.session_id != entry.session_id]
        decision.apply(self._state, context.session_id)
        if entry.session_id and self._state.session(entry.session_id):
            events.append(make_event(entry, entry.command, "applied", decision.message, decision.data))
        return ReadResult(data=decision.data, message=decision.message)

    def _count_waiting_events(self, entry: Entry, command: Command) -> int:
        """Count the events kept for replay in the session, if the command resumes it."""
        resumes = isinstance(command, ResumeSession) or (
            isinstance(command, Batch) and any(item.command == RESUME_SESSION for item in command.commands)
        )
        if not resumes or entry.session_id is None:
            return 0
        self._flush()
        return self._store.parked_in(entry.session_id)

    def _require_permission(self, entry: Entry, command: Command) -> None:
        """Raise Forbidden for a command that only the holder of a task may send, unless the sender holds one in the
        session now. Other permissions were checked on acceptance."""
        if not needs_held_task(entry.scopes, command):
            return
        self._flush()
        session_id = None if command.session == "none" else entry.session_id
        if session_id is None or not self._store.holds_task(entry.source, session_id):
            raise no_task_held(entry.scopes, command)

    def _run_batch(self, entry: Entry, batch: Batch, context: Context, events: list[Event]) -> ReadResult:
        commands = [decode_command(item.command, item.data) for item in batch.commands]
        options: dict[str, Any] = {"entry": entry, "events": events, "max_characters": batch.max_characters}
        before = self._state.fork()

        def read(command: ReadCommand) -> ReadResult:
            self._flush()
            return self._read(entry, command)

        try:
            if not any(isinstance(command, ReadCommand) for command in commands):
                return run_batch(self._state, commands, batch.mode, context, read=read, **options)
            # Reads see the batch's writes, so these go to the store before it is known whether all succeed.
            self._flush()
            before = self._state.fork()
            with self._store.savepoint():
                answer = run_batch(self._state, commands, batch.mode, context, read=read, **options)
                self._flush()
                return answer
        except Exception:
            self._state = before
            raise

    def _read(self, entry: Entry, command: ReadCommand) -> ReadResult:
        self._flush()
        if time.monotonic() > self._read_until:
            raise too_slow()
        read_scope = ReadScope(
            session_id=entry.session_id, session_glob=entry.session_glob, now=datetime.now(UTC), source=entry.source
        )
        if self._reading is None:
            return self._store.read(command, read_scope)
        seconds = self._reading.left(entry.source)
        began_at = time.monotonic()
        try:
            return self._store.read(command, read_scope, seconds=seconds)
        except Rejected as error:
            if error.code == too_slow().code and seconds < TOGETHER_SECONDS:
                raise exhausted() from error  # Alone it has more time, and might finish.
            raise
        finally:
            self._reading.spend(entry.source, time.monotonic() - began_at)

    def _repeat(self, entry: Entry, command: Command | Exception, earlier: PriorDelivery) -> ApplyResult:
        """Answer a delivery id that was decided before: with the first response again, or a conflict if the command
        differs."""
        now = datetime.now(UTC)
        before = ApplyResult(
            entry=entry,
            status="duplicate",
            http_status=earlier.http_status,
            response=earlier.response or EMPTY_OBJECT,
            binds=binds(earlier),
        )
        if entry.hash != earlier.hash:
            self._flush()
            self._store.record_conflict(entry, now)
            return _failed(entry, delivery_conflict(), status="conflict", now=now)
        if isinstance(command, ReadCommand) and before.http_status == 200:
            self._read_until = time.monotonic() + READ_SECONDS
            try:
                self._require_permission(entry, command)
                response = _succeeded(entry, self._read(entry, command), now)
            except Rejected as error:
                return _failed(entry, error, status="duplicate", now=now)
            return ApplyResult(entry=entry, status="duplicate", http_status=200, response=response)
        if before.response == EMPTY_OBJECT and before.http_status == 200:
            done = ReadResult(
                data={}, message="This command was executed before; its response was deleted with the session."
            )
            before = msgspec.structs.replace(before, response=_succeeded(entry, done, now))
        elif before.response == EMPTY_OBJECT:
            rejected = Rejected("This command was rejected before; the reason was deleted with the session.")
            rejected.status = before.http_status
            return _failed(entry, rejected, status="duplicate", now=now)
        return before

    def _reject(self, entry: Entry, error: Rejected, now: datetime, *, is_kept: bool = False) -> ApplyResult:
        if error.code == "session_not_found" and entry.session_id and self._suggestions:
            self._suggestions -= 1
            self._flush()
            similar = self._store.nearest_sessions(entry.session_id, session_glob=entry.session_glob)
            if similar and isinstance(error, NotFound):
                error.hint = f"Did you mean {' or '.join(map(repr, similar))}? Otherwise create it with create_session."
        kept = None
        if error.code in STATE_CODES and is_unattended(entry):
            kept = self._parking.park(entry, is_kept=is_kept)
            error.hint = KEPT if kept else NOT_KEPT
        rejected = _failed(entry, error, status="parked" if kept else "rejected", now=now)
        rejected = msgspec.structs.replace(rejected, binds=error.code not in UNBOUND_CODES)
        self._record(
            entry,
            status=rejected.status,
            http_status=error.status,
            response=recorded(rejected.response, command=entry.command, http_status=error.status),
            now=now,
            kept=kept,
        )
        # Senders without permission, with an invalid claim or with too many reads leave no trace in a session.
        is_traced = not isinstance(error, Forbidden) and error.code not in UNTRACED_CODES
        if entry.session_id and self._state.session(entry.session_id) and is_traced:
            ids = {"code": error.code, **({"kept": True} if kept else {})}
            self._events.append(make_event(entry, entry.command, "rejected", error.message, ids))
        return rejected

    def _ignore(self, entry: Entry, now: datetime) -> ApplyResult:
        """Record that the entry arrived, and why it was ignored."""
        reason = Raw(msgspec.json.encode(entry.ignored))
        self._record(entry, status="ignored", http_status=202, response=reason, now=now)
        return ApplyResult(entry=entry, status="ignored", http_status=202, response=reason)

    def _dead_letter(self, entry: Entry, error: Exception) -> ApplyResult:
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
        failed = msgspec.structs.replace(_failed(entry, fault, status="failed", now=now), trace=trace)
        self._record(
            entry,
            status="failed",
            http_status=fault.status,
            response=failed.response,
            now=now,
            kept=Raw(msgspec.json.encode(entry)),
            trace=trace,
        )
        if entry.session_id and self._state.session(entry.session_id):
            self._events.append(make_event(entry, entry.command, "failed", fault.message, {"code": fault.code}))
        return failed

    def _record(
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
        self._deliveries[_identity(entry)] = Delivery(
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

    def _flush(self, *, journal: bool = False) -> None:
        """Write pending changes; the journal only at the end, because its lock is taken last."""
        changes = self._state.take_changes()
        events = self._events if journal else []
        if changes.put or changes.removed or self._deliveries or events:
            self._store.write(changes, list(self._deliveries.values()), events)
        self._deliveries = {}
        if journal:
            self._events = []


def _decode(entry: Entry, wanted: ReadSet | None = None) -> Command | Exception:
    """Decode the command, once for all uses, and add the records that it touches to `wanted`. An error affects this
    entry alone: it is rejected, or becomes a dead letter."""
    try:
        command = decode_command(entry.command, entry.data)
        if wanted is not None:
            wanted.add(command, entry.session_id, entry.session_glob)
        return command
    except Exception as error:
        return error


def _identity(entry: Entry) -> Identity:
    return entry.source, entry.delivery_id


def _is_another_event(entry: Entry, earlier: PriorDelivery) -> bool:
    """Check whether an entry shares the id of an earlier event only because its sender sends none and repeats the
    content."""
    return entry.by_content and not entry.resolution and entry.accepted_at >= earlier.accepted_at + REPEAT_WINDOW


def _is_decided_anew(entry: Entry, earlier: PriorDelivery) -> bool:
    """Check whether an entry is decided although its delivery id was decided before."""
    if entry.resolution:
        return earlier.status in REPLAYABLE and entry.hash == earlier.hash
    # An entry accepted no later is not a redelivery: a worker decided it and died before acknowledging it.
    if entry.accepted_at <= earlier.accepted_at:
        return False
    # A parked event may still be applied, so its id stands for its content.
    return not binds(earlier) and (earlier.status != "parked" or entry.hash == earlier.hash)


def _succeeded(entry: Entry, answer: ReadResult, now: datetime) -> Raw:
    body = success(
        command=entry.command,
        session_id=entry.session_id,
        delivery_id=entry.delivery_id,
        now=now,
        message=answer.message,
        data=answer.data,
    )
    return Raw(msgspec.json.encode(body))


def _failed(entry: Entry, error: RelayError, *, status: str, now: datetime) -> ApplyResult:
    body = failure(error, command=entry.command, session_id=entry.session_id, delivery_id=entry.delivery_id, now=now)
    response = Raw(msgspec.json.encode(body))
    return ApplyResult(entry=entry, status=status, http_status=error.status, response=response)  # type: ignore[arg-type]
