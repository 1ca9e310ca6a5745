"""Runs one command of a transaction: reads it answers, changes it decides by the rules."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from models.commands.definitions import Batch, Command, DeleteSession, ReadCommand, ResumeSession, name_of
from models.commands.payloads import decode_command
from models.errors import Rejected
from models.queue.inbox import Entry
from sessions.commands.batches import run_batch
from sessions.commands.pending_writes import PendingWrites
from sessions.commands.read_time_budget import TOGETHER_SECONDS, ReadTimeBudget, exhausted
from sessions.commands.repeated_batches import LatestChanges, answer_again
from sessions.commands.store import Store, too_slow
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import ReadResult
from sessions.rules.decision import Context
from sessions.rules.dispatch import decide
from sessions.rules.event_log import Event, make_event
from sessions.rules.task_access import needs_held_task, no_task_held

READ_SECONDS = 10.0
"""For all reads of one entry together."""
RESUME_SESSION = name_of(ResumeSession())


class CommandRunner:
    """Runs commands on the pending writes of a transaction."""

    def __init__(
        self, store: Store, writes: PendingWrites, latest: LatestChanges, *, reading: ReadTimeBudget | None
    ) -> None:
        self._store = store
        self._writes = writes
        self._latest = latest
        self._reading = reading
        self._read_until = 0.0

    def run(self, entry: Entry, command: Command, events: list[Event]) -> ReadResult:
        """Return the answer, and add what happened to `events`. Raises Rejected."""
        if isinstance(command, ReadCommand):
            return self.read(entry, command)
        self._read_until = time.monotonic() + READ_SECONDS
        self._require_permission(entry, command)
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
        decision = decide(self._writes.state, command, context)
        if isinstance(command, DeleteSession):
            self._writes.flush()  # Deleting clears the recorded responses of earlier deliveries.
            self._latest.forget(context.session_id)
            self._writes.events = [event for event in self._writes.events if event.session_id != entry.session_id]
        decision.apply(self._writes.state, context.session_id)
        if entry.session_id and self._writes.state.session(entry.session_id):
            events.append(make_event(entry, entry.command, "applied", decision.message, decision.data))
        return ReadResult(data=decision.data, message=decision.message)

    def read(self, entry: Entry, command: ReadCommand) -> ReadResult:
        """Return the answer of a read. Raises Rejected."""
        self._read_until = time.monotonic() + READ_SECONDS
        self._require_permission(entry, command)
        return self._read(entry, command)

    def _count_waiting_events(self, entry: Entry, command: Command) -> int:
        """Count the events kept for replay in the session, if the command resumes it."""
        resumes = isinstance(command, ResumeSession) or (
            isinstance(command, Batch) and any(item.command == RESUME_SESSION for item in command.commands)
        )
        if not resumes or entry.session_id is None:
            return 0
        self._writes.flush()
        return self._store.parked_in(entry.session_id)

    def _require_permission(self, entry: Entry, command: Command) -> None:
        """Raise Forbidden for a command that only the holder of a task may send, unless the sender holds one in the
        session now. Other permissions were checked on acceptance."""
        if not needs_held_task(entry.scopes, command):
            return
        self._writes.flush()
        session_id = None if command.session == "none" else entry.session_id
        if session_id is None or not self._store.holds_task(entry.source, session_id):
            raise no_task_held(entry.scopes, command)

    def _run_batch(self, entry: Entry, batch: Batch, context: Context, events: list[Event]) -> ReadResult:
        commands = [decode_command(item.command, item.data) for item in batch.commands]
        options: dict[str, Any] = {"entry": entry, "events": events, "max_characters": batch.max_characters}
        before = self._writes.state.fork()

        def read(command: ReadCommand) -> ReadResult:
            self._writes.flush()
            return self._read(entry, command)

        try:
            if not any(isinstance(command, ReadCommand) for command in commands):
                return run_batch(self._writes.state, commands, batch.mode, context, read=read, **options)
            # Reads see the batch's writes, so these go to the store before it is known whether all succeed.
            self._writes.flush()
            before = self._writes.state.fork()
            with self._store.savepoint():
                answer = run_batch(self._writes.state, commands, batch.mode, context, read=read, **options)
                self._writes.flush()
                return answer
        except Exception:
            self._writes.state = before
            raise

    def _read(self, entry: Entry, command: ReadCommand) -> ReadResult:
        self._writes.flush()
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
