"""The session manager: applies entries in order, inside one transaction of a store.

It detects duplicates, rejections and poison; rules decide the effect of commands, and the store records it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import Raw

from models.commands.definitions import Command, DeleteSession, ReadCommand
from models.commands.payloads import decode_command
from models.commands.responses import success
from models.delivery_conflict import delivery_conflict
from models.errors import Rejected, Unavailable
from models.queue.inbox import REPEAT_WINDOW, Entry, Identity
from sessions.commands.command_runner import CommandRunner
from sessions.commands.parked_events import binds
from sessions.commands.pending_writes import PendingWrites, identity_of
from sessions.commands.read_time_budget import ReadTimeBudget
from sessions.commands.refusals import Refusals, failed
from sessions.commands.repeated_batches import LatestChanges
from sessions.commands.session_titles import is_taken, name_session
from sessions.commands.store import StatementFailed, Store, value_refused
from sessions.reads.results import ReadResult
from sessions.responses.recorded_responses import recorded
from sessions.responses.redaction import redacted
from sessions.rules.dispatch import ReadSet
from sessions.rules.event_log import REPLAYABLE, ApplyResult, Event, PriorDelivery, make_event
from sessions.rules.records import EMPTY_OBJECT, session_key

logger = logging.getLogger(__name__)


TRANSACTION_SECONDS = 2.0
"""Time after which no further entry is started, so that slow reads cannot prolong a transaction endlessly."""


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
        self._writes = PendingWrites(store)
        self._refusals = Refusals(store, self._writes)

    def apply(self, entries: Sequence[Entry]) -> list[ApplyResult]:
        """Apply entries in order, each once, and return the result of each. An entry that cannot be applied becomes a
        dead letter on its own; the others go on. When the time is up, the remaining entries are not started: the
        results are fewer than the entries, but at least one. Raises Unavailable, after which the transaction must be
        rolled back."""
        if len(entries) > 1 and any(identity_of(entry) == self._suspect for entry in entries):
            return self._apply_singly(entries)
        try:
            with self._store.savepoint():
                return self._apply(entries)
        except StatementFailed as error:
            self._writes.clear()
            self._refusals.clear()
            if len(entries) == 1:
                if error.too_slow and identity_of(entries[0]) != self._suspect:
                    self.slow = identity_of(entries[0])
                    raise RetryOnce from error
                with self._store.savepoint():
                    session_id = entries[0].session_id
                    self._writes.state = self._store.load(
                        ReadSet(keys={session_key(session_id)} if session_id else set())
                    )
                    applied = [redacted(self._decide_failed(entries[0], error), _decode(entries[0]))]
                    self._writes.flush(journal=True)
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
            return self._refusals.dead_letter(entry, error)
        logger.error("No check rejected a value of delivery %s of %s: %s", entry.delivery_id, entry.source, error)
        return self._refusals.reject(entry, value_refused(), datetime.now(UTC))

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
        self._runner = CommandRunner(self._store, self._writes, self._latest, reading=self._reading)
        self._latest.look_up(zip(entries, decoded, strict=True))
        self._writes.state = self._store.load(wanted)
        applied: list[ApplyResult] = []
        handled: dict[Identity, PriorDelivery] = {}
        deleted: set[str | None] = set()
        for entry, item in zip(entries, decoded, strict=True):
            if applied and self._is_time_up():
                break
            identity = identity_of(entry)
            earlier = handled.get(identity) or known.get(identity)
            if earlier is not None and _is_another_event(entry, earlier):
                self._writes.flush()
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
        self._writes.flush(journal=True)
        return applied

    def _decide(self, entry: Entry, command: Command | Exception, *, is_kept: bool) -> ApplyResult:
        now = datetime.now(UTC)
        if entry.resolution and entry.resolution.discards:
            discarded = Rejected("The command could not be applied, and an operator discarded it.", code="discarded")
            return self._refusals.reject(entry, discarded, now)
        if entry.ignored:
            return self._refusals.ignore(entry, now)
        try:
            if isinstance(command, Exception):
                raise command
            events: list[Event] = []
            if entry.names_session and is_taken(entry, command, state=self._writes.state):
                self._writes.flush()
                entry = name_session(entry, command, state=self._writes.state, store=self._store)
                self._latest.look_up([(entry, command)])
            answer = self._runner.run(entry, command, events)
        except Rejected as error:
            return self._refusals.reject(entry, error, now, is_kept=is_kept)
        except (Unavailable, StatementFailed):
            raise
        except Exception as error:
            return self._refusals.dead_letter(entry, error)
        if entry.resolution and not events and entry.session_id and self._writes.state.session(entry.session_id):
            events.append(make_event(entry, entry.command, "applied", answer.message, answer.data))
        response = _succeeded(entry, answer, now)
        kept = recorded(response, command=entry.command, http_status=200)
        self._writes.record(entry, status="applied", http_status=200, response=kept, now=now)
        self._writes.events += events
        if events:
            self._latest.remember(entry, command, response)
        return ApplyResult(entry=entry, status="applied", http_status=200, response=response)

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
            self._writes.flush()
            self._store.record_conflict(entry, now)
            return failed(entry, delivery_conflict(), status="conflict", now=now)
        if isinstance(command, ReadCommand) and before.http_status == 200:
            try:
                response = _succeeded(entry, self._runner.read(entry, command), now)
            except Rejected as error:
                return failed(entry, error, status="duplicate", now=now)
            return ApplyResult(entry=entry, status="duplicate", http_status=200, response=response)
        if before.response == EMPTY_OBJECT and before.http_status == 200:
            done = ReadResult(
                data={}, message="This command was executed before; its response was deleted with the session."
            )
            before = msgspec.structs.replace(before, response=_succeeded(entry, done, now))
        elif before.response == EMPTY_OBJECT:
            rejected = Rejected("This command was rejected before; the reason was deleted with the session.")
            rejected.status = before.http_status
            return failed(entry, rejected, status="duplicate", now=now)
        return before


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
