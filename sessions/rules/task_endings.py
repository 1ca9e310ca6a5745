"""How tasks end that nobody works on: they are cancelled, or fail as one that they depend on will not be completed.
Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol, TypeVar, cast

import msgspec
from msgspec import Raw

from models.commands.responses import shorten
from models.field_types import TaskStatus
from sessions.rules.event_log import Event

DEAD: frozenset[TaskStatus] = frozenset({"failed", "cancelled"})
"""In which a task will not be completed by itself any more."""
TITLE_LENGTH = 80
SESSION_COMPLETED = "The session was completed."
SWEEPER = "sweeper"
"""Who does what follows by itself, in journals."""


class Dependent(Protocol):
    """A task, as a record or as an item of a document."""

    @property
    def task_id(self) -> str:
        """Its id."""

    @property
    def status(self) -> TaskStatus:
        """Its state."""

    @property
    def description(self) -> str:
        """What is to be done."""

    @property
    def depends_on(self) -> Sequence[str]:
        """The ids of tasks of the same session."""


D = TypeVar("D", bound=Dependent)


def cancel(task: D, why: str | None, at: datetime) -> D:
    """The task as cancelled. Whoever cancels it knows of it, so `updates` do not mention it."""
    values = {"status": "cancelled", "cancel_reason": why, "lease_expires_at": None}
    return _replace(task, {**values, "updated_at": at, "finished_at": at, "shown_at": at})


def reason(title: str, status: str) -> str:
    """Why a task fails that depends on one in this status."""
    became = "was cancelled" if status == "cancelled" else status
    return f'It depends on "{shorten(title, TITLE_LENGTH)}", which {became}.'


def fail_dependents(ended: Iterable[D], tasks: Iterable[D], *, at: datetime) -> list[D]:
    """The pending ones of these tasks of one session that depend on the ended ones, directly or not, as failed."""
    waiting: dict[str, list[D]] = {}
    for task in tasks:
        if task.status == "pending":
            for needed in task.depends_on:
                waiting.setdefault(needed, []).append(task)
    failed: dict[str, D] = {}
    causes = list(ended) if waiting else []
    while causes:
        cause = causes.pop()
        for task in waiting.pop(cause.task_id, ()):
            if task.task_id not in failed:
                values = {"status": "failed", "error": reason(cause.description, cause.status), "shown_at": None}
                failed[task.task_id] = _replace(task, {**values, "finished_at": at, "updated_at": at})
                causes.append(failed[task.task_id])
    return list(failed.values())


def event_of_dependent(
    *, session_id: str, task_id: str, title: str, attempt: int, error: str | None, at: datetime
) -> Event:
    """What the journal tells of a task that failed because of another."""
    return Event(
        session_id=session_id,
        event="fail_task",
        status="applied",
        delivery_id=None,
        source=SWEEPER,
        message=shorten(f'"{shorten(title, TITLE_LENGTH)}" failed. {error or ""}'),
        created_at=at,
        data=Raw(msgspec.json.encode({"task_id": task_id, "attempt": attempt})),
    )


def _replace(task: D, values: Mapping[str, object]) -> D:
    return cast(D, msgspec.structs.replace(cast(msgspec.Struct, task), **values))
