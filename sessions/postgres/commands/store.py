"""The store in Postgres, for one transaction on one connection."""

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
from sessions.postgres.commands.writing import write_changes, write_deliveries, write_events
from sessions.postgres.connections import explain, is_bad_value, is_too_slow, is_unavailable, unavailable
from sessions.postgres.operations.dead_letters import parked_by, parked_in
from sessions.postgres.operations.deliveries import find_known, last_said, note_conflict, set_apart
from sessions.postgres.reads.read_commands import find_updates, read, similar_ids
from sessions.postgres.reads.read_timeout import OutOfTime, lift_time_limit, time_limit
from sessions.postgres.tasks.dependent_tasks import FailedDependent, fail_dependents
from sessions.postgres.tasks.leases import holds_task
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
        """Those that were written."""
        self._failed: list[FailedDependent] = []
        """Those that failed because they depend on one of these, and of which the journal does not tell yet."""
        self._settled: list[tuple[str, str]] = []
        """Those of which it does."""

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what was written in it when it is left by an exception."""
        before = dict(self._tasks), list(self._failed), list(self._settled)
        try:
            with _translated(), self._connection.begin_nested():
                yield
        except BaseException:
            self._tasks, self._failed, self._settled = before
            raise

    def known_deliveries(self, entries: Sequence[Entry]) -> dict[tuple[str, str], PriorDelivery]:
        """Which of these were decided before, by source and delivery id."""
        with _translated():
            return find_known(self._connection, entries)

    def last_said(self, entries: Sequence[Entry]) -> dict[str, Said]:
        """By session the last change, as far as it has the content of one of these entries."""
        with _translated():
            return last_said(self._connection, entries)

    def load(self, wanted: ReadSet) -> State:
        """The records that exist of those wanted."""
        with _translated():
            return load(self._connection, wanted)

    def write(self, changes: Changes, deliveries: Sequence[Delivery], events: Sequence[Event]) -> None:
        """Write all of it, the journal last. Raises StatementFailed."""
        with _translated():
            write_changes(self._connection, changes)
            self._forget({key[1] for key in changes.removed if key[0] == "sessions"})
            self._tasks |= {key: record for key, record in changes.put.items() if isinstance(record, Task)}
            if changes.ended:
                self._failed += fail_dependents(self._connection, {(key[1], key[2]) for key in changes.ended})
            write_deliveries(self._connection, deliveries)
            if events:  # Who ended a task has one, so that those of its dependents follow at once.
                write_events(self._connection, [*events, *(failed.event for failed in self._failed)])
                self._settled += [failed.key for failed in self._failed]
                self._failed = []

    def _forget(self, deleted: Collection[str]) -> None:
        """Announce nothing of tasks that were deleted with their sessions: one made anew must see nothing of them."""
        if deleted:
            self._tasks = {key: task for key, task in self._tasks.items() if task.session_id not in deleted}
            self._failed = [failed for failed in self._failed if failed.event.session_id not in deleted]
            self._settled = [key for key in self._settled if key[0] not in deleted]

    def holds_task(self, source: str, session_id: str) -> bool:
        """Whether somebody with this key has claimed a task of the session, and has it still."""
        with _translated():
            return holds_task(self._connection, source, session_id)

    def task_news(self, *, resumed: Collection[str] = ()) -> TaskNotification:
        """What those who wait for tasks are to be told, once this is committed: of the tasks that were written, and of
        all in these sessions. Nothing, if that cannot be found out: who waits also looks by itself."""
        if not (self._tasks or resumed):
            return TaskNotification()
        with _translated():
            try:
                with self._connection.begin_nested():
                    news = find_notifications(self._connection, self._tasks, resumed=resumed)
                    return msgspec.structs.replace(news, settled=[*news.settled, *self._settled])
            except SQLAlchemyError as error:
                if is_unavailable(error):
                    raise
                return TaskNotification()

    def record_conflict(self, entry: Entry, at: datetime) -> None:
        """Note that the delivery id came again with other content."""
        with _translated():
            note_conflict(self._connection, entry, at)

    def set_apart(self, entry: Entry, accepted_at: datetime) -> None:
        """Give the delivery that was accepted at that moment an id of its own, so that the entry can have its id."""
        with _translated():
            set_apart(self._connection, entry, accepted_at)

    def parked_by(self, source: str) -> tuple[int, int]:
        """How many events of a source are kept for a replay, and their bytes."""
        with _translated():
            return parked_by(self._connection, source)

    def parked_in(self, session_id: str) -> int:
        """How many events are kept for a replay in a session."""
        with _translated():
            return parked_in(self._connection, session_id)

    def read(
        self,
        command: ReadCommand,
        *,
        session_id: str | None,
        session_glob: str | None,
        now: datetime,
        source: str,
        seconds: float | None = None,
    ) -> ReadResult:
        """The answer to a read. Raises Rejected, also when it takes too long: no read may hold up a shard."""
        where: dict[str, Any] = {"session_id": session_id, "session_glob": session_glob, "now": now}
        where["source"] = source
        with _translated():
            try:
                with self._connection.begin_nested():
                    if seconds is None:
                        return read(self._connection, command, **where)
                    with time_limit(self._connection, seconds):
                        answer = read(self._connection, command, **where)
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

    def nearest_sessions(self, session_id: str, *, session_glob: str | None) -> list[str]:
        """Up to three existing ids that are like this one."""
        with _translated():
            return similar_ids(self._connection, "session", session_id, session_id=None, session_glob=session_glob)

    def updates(self, listeners: Collection[Listener], now: datetime) -> dict[Listener, list[dict[str, Any]]]:
        """What each should hear of its session's tasks, and of those that it delegated elsewhere."""
        with _translated():
            return find_updates(self._connection, listeners, now)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        if is_unavailable(error):
            raise unavailable() from error
        raise StatementFailed(explain(error), too_slow=is_too_slow(error), bad_value=is_bad_value(error)) from error
