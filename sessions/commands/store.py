"""The interface of a store for the session manager: one transaction, in Postgres or in files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

from models.commands.definitions import ReadCommand
from models.errors import Invalid, Rejected
from models.queue.inbox import Entry
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import ReadResult
from sessions.responses.task_updates import Listener
from sessions.rules.dispatch import ReadSet
from sessions.rules.event_log import Delivery, Event, PriorDelivery, Said
from sessions.rules.state import Changes, State


class StatementFailed(Exception):
    """The store rejected a statement; to find the cause, apply fewer entries at once."""

    def __init__(self, message: str, *, too_slow: bool = False, bad_value: bool = False) -> None:
        """`bad_value` means that the store cannot hold or compute one of the values, whoever sends it."""
        super().__init__(message)
        self.too_slow = too_slow
        self.bad_value = bad_value


def value_refused() -> Rejected:
    """The error for a value that passed all checks and that the store cannot hold or compute."""
    return Invalid(
        "One of the values exceeds what can be stored or searched.",
        expected="times, numbers and texts of ordinary size",
        hint="If a text is long, split it.",
    )


def too_slow() -> Rejected:
    """The error for a read that takes so long that it would delay all others of its shard."""
    return Rejected(
        "The read took too long and was cancelled.",
        code="too_slow",
        hint="Ask for less: one session, a shorter period, fewer words. If it was little, the servers are busy: send "
        "it again in a few seconds.",
    )


class Store(Protocol):
    """One transaction on a store. Each method may raise Unavailable, after which nothing was changed."""

    def savepoint(self) -> AbstractContextManager[object]:
        """Undo the writes inside it when it is left by an exception."""

    def known_deliveries(self, entries: Sequence[Entry]) -> dict[tuple[str, str], PriorDelivery]:
        """The deliveries of these entries that were decided before, by source and delivery id."""

    def last_said(self, entries: Sequence[Entry]) -> dict[str, Said]:
        """The last change of each session, where it has the content of one of these entries."""

    def load(self, wanted: ReadSet) -> State:
        """The existing records among those wanted."""

    def write(self, changes: Changes, deliveries: Sequence[Delivery], events: Sequence[Event]) -> None:
        """Write all of it. Raises StatementFailed."""

    def holds_task(self, source: str, session_id: str) -> bool:
        """Check whether this key has claimed a task of the session and still holds it."""

    def record_conflict(self, entry: Entry, at: datetime) -> None:
        """Record that the delivery id arrived again with other content."""

    def set_apart(self, entry: Entry, accepted_at: datetime) -> None:
        """Give the delivery that was accepted at that time another id, so that the entry can have its id."""

    def parked_by(self, source: str) -> tuple[int, int]:
        """The number and the bytes of a source's events that are kept for replay."""

    def parked_in(self, session_id: str) -> int:
        """The number of events kept for replay in a session."""

    def read(self, command: ReadCommand, read_scope: ReadScope, *, seconds: float | None = None) -> ReadResult:
        """The result of a read, which sees the writes of this transaction, and may take at most `seconds` where other
        senders wait for it. Records that the source has seen the task that it reads. Raises Rejected."""

    def nearest_sessions(self, session_id: str, *, session_glob: str | None) -> dict[str, str]:
        """Up to three existing sessions whose id or title is similar to this id, with their titles."""

    def updates(self, listeners: Collection[Listener], now: datetime) -> dict[Listener, list[dict[str, Any]]]:
        """The updates for each listener: on its session's tasks, and on those that it delegated elsewhere."""
