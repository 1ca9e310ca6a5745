"""Endings of tasks that no agent works on: cancelled, or failed because a dependency will not be completed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol, TypeVar, cast

import msgspec
from msgspec import Raw

from models.commands.responses import make_title, shorten
from models.field_types import TaskStatus
from sessions.rules.event_log import Event

DEAD: frozenset[TaskStatus] = frozenset({"failed", "cancelled"})
"""Statuses in which a task will not be completed unless a client acts."""
SESSION_COMPLETED = "The session was completed."
SWEEPER = "sweeper"
"""Source of automatic changes in journals."""


class Dependent(Protocol):
    """A task, as a record or as an item of a document."""

    @property
    def task_id(self) -> str:
        """Its id."""

    @property
    def status(self) -> TaskStatus:
        """Its status."""

    @property
    def titled(self) -> str:
        """Its title, or else the text to make one from."""

    @property
    def depends_on(self) -> Sequence[str]:
        """The ids of tasks of the same session."""


D = TypeVar("D", bound=Dependent)


def cancel(task: D, cancel_reason: str | None, at: datetime) -> D:
    """The task as cancelled. The sender that cancels it knows of it, so `updates` omit it."""
    values = {"status": "cancelled", "cancel_reason": cancel_reason, "lease_expires_at": None}
    return _replace(task, {**values, "updated_at": at, "finished_at": at, "shown_at": at})


def reason(titled: str, status: str) -> str:
    """The reason cancel_reason a task fails that depends on one in this status."""
    outcome = "was cancelled" if status == "cancelled" else status
    return f'It depends on "{make_title(titled)}", which {outcome}.'


def fail_dependents(ended: Iterable[D], tasks: Iterable[D], *, at: datetime) -> list[D]:
    """Fail those pending tasks of a session that depend on the ended ones, directly or indirectly."""
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
                values = {"status": "failed", "error": reason(cause.titled, cause.status), "shown_at": None}
                failed[task.task_id] = _replace(task, {**values, "finished_at": at, "updated_at": at})
                causes.append(failed[task.task_id])
    return list(failed.values())


def event_of_dependent(
    *, session_id: str, task_id: str, titled: str, attempt: int, error: str | None, at: datetime
) -> Event:
    """The journal entry of a task that failed because of a dependency."""
    return Event(
        session_id=session_id,
        event="fail_task",
        status="applied",
        delivery_id=None,
        source=SWEEPER,
        message=shorten(f'"{make_title(titled)}" failed. {error or ""}'),
        created_at=at,
        data=Raw(msgspec.json.encode({"task_id": task_id, "attempt": attempt})),
    )


def _replace(task: D, values: Mapping[str, object]) -> D:
    return cast(D, msgspec.structs.replace(cast(msgspec.Struct, task), **values))
