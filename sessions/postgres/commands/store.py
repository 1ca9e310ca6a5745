"""The Postgres store for one transaction on one connection."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from models.commands.definitions import ReadCommand
from models.queue.inbox import Entry
from models.queue.task_notifications import TaskNotification
from sessions.commands.store import StatementFailed, too_slow, value_refused
from sessions.postgres.commands.loading import load
from sessions.postgres.commands.task_notifications import find_notifications
from sessions.postgres.commands.writing import (
    insert_deliveries,
    insert_events,
    insert_records,
    send,
    write_removals,
)
from sessions.postgres.connections import explain, is_bad_value, is_too_slow, is_unavailable, unavailable
from sessions.postgres.operations.dead_letters import parked_by, parked_in
from sessions.postgres.operations.deliveries import find_known, last_said, record_conflict, set_apart
from sessions.postgres.reads.read_commands import find_updates, read, similar_sessions
from sessions.postgres.reads.read_timeout import OutOfTime, lift_time_limit, time_limit
from sessions.postgres.tasks.dependent_tasks import FailedDependent, fail_dependents
from sessions.postgres.tasks.leases import holds_task
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import ReadResult
from sessions.responses.task_updates import Listener
from sessions.rules.dispatch import ReadSet
from sessions.rules.event_log import Delivery, Event, PriorDelivery, Said
from sessions.rules.records import Key, Task
from sessions.rules.state import Changes, State


class PostgresStore:
    """Implements `sessions.commands.store.Store`. The caller begins and ends the transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tasks: dict[Key, Task] = {}
        """Tasks written in this transaction."""
        self._failed: list[FailedDependent] = []
        """Failed dependents of these tasks whose events are not written yet."""
        self._settled: list[tuple[str, str]] = []
        """Failed dependents whose events are written."""

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Roll back the writes of the block if it raises."""
        before = dict(self._tasks), list(self._failed), list(self._settled)
        try:
            with _as_statement_failures(), self._connection.begin_nested():
                yield
        except BaseException:
            self._tasks, self._failed, self._settled = before
            raise

    def known_deliveries(self, entries: Sequence[Entry]) -> dict[tuple[str, str], PriorDelivery]:
        """Return earlier decisions on these entries, by source and delivery id."""
        with _as_statement_failures():
            return find_known(self._connection, entries)

    def last_said(self, entries: Sequence[Entry]) -> dict[str, Said]:
        """Return, per session, the last change, if it has the content of one of these entries."""
        with _as_statement_failures():
            return last_said(self._connection, entries)

    def load(self, wanted: ReadSet) -> State:
        """Load the requested records that exist."""
        with _as_statement_failures():
            return load(self._connection, wanted)

    def write(self, changes: Changes, deliveries: Sequence[Delivery], events: Sequence[Event]) -> None:
        """Write changes, deliveries and events, the events last. Raises StatementFailed."""
        with _as_statement_failures():
            write_removals(self._connection, changes)
            self._forget({key[1] for key in changes.removed if key[0] == "sessions"})
            self._tasks |= {key: record for key, record in changes.put.items() if isinstance(record, Task)}
            inserts = insert_records(changes)
            if changes.ended:
                send(self._connection, inserts)
                self._failed += fail_dependents(self._connection, {(key[1], key[2]) for key in changes.ended})
                inserts = []
            inserts += insert_deliveries(deliveries)
            if events:  # A command that ends a task has an event, so the events of its dependents follow it.
                inserts += insert_events([*events, *(failed.event for failed in self._failed)])
                self._settled += [failed.key for failed in self._failed]
                self._failed = []
            send(self._connection, inserts)

    def _forget(self, deleted: Collection[str]) -> None:
        """Drop the notifications of deleted sessions' tasks: a session created again under the id must not see them."""
        if deleted:
            self._tasks = {key: task for key, task in self._tasks.items() if task.session_id not in deleted}
            self._failed = [failed for failed in self._failed if failed.event.session_id not in deleted]
            self._settled = [key for key in self._settled if key[0] not in deleted]

    def holds_task(self, source: str, session_id: str) -> bool:
        """Return whether the source holds the claim of a task in the session."""
        with _as_statement_failures():
            return holds_task(self._connection, source, session_id)

    def task_news(self, *, resumed: Collection[str] = ()) -> TaskNotification:
        """Return the notification to publish after the commit: of the written tasks, and of all tasks in resumed
        sessions.

        Empty if its statements fail, since waiting clients also poll.
        """
        if not (self._tasks or resumed):
            return TaskNotification()
        with _as_statement_failures():
            try:
                with self._connection.begin_nested():
                    news = find_notifications(self._connection, self._tasks, resumed=resumed)
                    return msgspec.structs.replace(news, settled=[*news.settled, *self._settled])
            except SQLAlchemyError as error:
                if is_unavailable(error):
                    raise
                return TaskNotification()

    def record_conflict(self, entry: Entry, at: datetime) -> None:
        """Record that the delivery id was reused with other content."""
        with _as_statement_failures():
            record_conflict(self._connection, entry, at)

    def set_apart(self, entry: Entry, accepted_at: datetime) -> None:
        """Rename the delivery that was accepted at that time, so that the entry can use its id."""
        with _as_statement_failures():
            set_apart(self._connection, entry, accepted_at)

    def parked_by(self, source: str) -> tuple[int, int]:
        """Return the number of parked events of a source, and their size in bytes."""
        with _as_statement_failures():
            return parked_by(self._connection, source)

    def parked_in(self, session_id: str) -> int:
        """Return the number of parked events of a session."""
        with _as_statement_failures():
            return parked_in(self._connection, session_id)

    def read(self, command: ReadCommand, read_scope: ReadScope, *, seconds: float | None = None) -> ReadResult:
        """Run a read. Raises Rejected, also if it takes too long: reads must not block a shard."""
        with _as_statement_failures():
            try:
                with self._connection.begin_nested():
                    if seconds is None:
                        return read(self._connection, command, read_scope)
                    with time_limit(self._connection, seconds):
                        answer = read(self._connection, command, read_scope)
                    lift_time_limit(self._connection)
                    return answer
            except OutOfTime as error:
                raise too_slow() from error
            except SQLAlchemyError as error:
                if is_too_slow(error):
                    raise too_slow() from error
                if is_bad_value(error):
                    raise value_refused() from error
                raise

    def nearest_sessions(self, session_id: str, *, session_glob: str | None) -> dict[str, str]:
        """Return up to three sessions with a similar id or title, with their titles."""
        with _as_statement_failures():
            return similar_sessions(self._connection, session_id, session_glob=session_glob)

    def updates(self, listeners: Collection[Listener], now: datetime) -> dict[Listener, list[dict[str, Any]]]:
        """Return, per listener, updates on its session's tasks and on tasks that it delegated elsewhere."""
        with _as_statement_failures():
            return find_updates(self._connection, listeners, now)


@contextmanager
def _as_statement_failures() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        if is_unavailable(error):
            raise unavailable() from error
        raise StatementFailed(explain(error), too_slow=is_too_slow(error), bad_value=is_bad_value(error)) from error
