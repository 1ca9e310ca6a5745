"""What the session manager asks of a store. One store is Postgres; another can be files."""

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
    """The store refused a statement; what caused it has to be found by doing less at once."""

    def __init__(self, message: str, *, too_slow: bool = False, bad_value: bool = False) -> None:
        """`bad_value` says that the store cannot hold or compute one of the values, whoever sends them."""
        super().__init__(message)
        self.too_slow = too_slow
        self.bad_value = bad_value


def value_refused() -> Rejected:
    """The refusal of a value that no check foresaw and the store cannot hold or compute."""
    return Invalid(
        "One of the values is beyond what can be stored or searched.",
        expected="times, numbers and texts of ordinary size",
        hint="If a text is long, split it.",
    )


def too_slow() -> Rejected:
    """The refusal of a read that takes so long that it would hold up all others of its shard."""
    return Rejected(
        "This took too long and was given up.",
        code="too_slow",
        hint="Ask for less: one session, a shorter period, fewer words, fewer reads at once.",
    )


class Store(Protocol):
    """One transaction on a store. Each method may raise Unavailable, after which nothing was changed."""

    def savepoint(self) -> AbstractContextManager[object]:
        """Undo what was written in it when it is left by an exception."""

    def known_deliveries(self, entries: Sequence[Entry]) -> dict[tuple[str, str], PriorDelivery]:
        """Which of these were decided before, by source and delivery id."""

    def last_said(self, entries: Sequence[Entry]) -> dict[str, Said]:
        """By session the last change, as far as it has the content of one of these entries."""

    def load(self, wanted: ReadSet) -> State:
        """The records that exist of those wanted."""

    def write(self, changes: Changes, deliveries: Sequence[Delivery], events: Sequence[Event]) -> None:
        """Write all of it. Raises StatementFailed."""

    def holds_task(self, source: str, session_id: str) -> bool:
        """Whether somebody with this key has claimed a task of the session, and has it still."""

    def record_conflict(self, entry: Entry, at: datetime) -> None:
        """Note that the delivery id came again with other content."""

    def set_apart(self, entry: Entry, accepted_at: datetime) -> None:
        """Give the delivery that was accepted at that moment an id of its own, so that the entry can have its id."""

    def parked_by(self, source: str) -> tuple[int, int]:
        """How many events of a source are kept for a replay, and their bytes."""

    def parked_in(self, session_id: str) -> int:
        """How many events are kept for a replay in a session."""

    def read(self, command: ReadCommand, read_scope: ReadScope, *, seconds: float | None = None) -> ReadResult:
        """The answer to a read, which sees what was written in this transaction, and may take so many `seconds` where
        others wait for it. The source has seen the task that it is shown. Raises Rejected."""

    def nearest_sessions(self, session_id: str, *, session_glob: str | None) -> list[str]:
        """Up to three existing ids that are like this one."""

    def updates(self, listeners: Collection[Listener], now: datetime) -> dict[Listener, list[dict[str, Any]]]:
        """What each should hear of its session's tasks, and of those that it delegated elsewhere."""
