"""Finds the task notifications of a transaction: claimable tasks, agents with free capacity, and settled tasks."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import ARRAY, Connection, Text, cast

from models.field_types import SETTLED
from models.queue.task_notifications import Claimable, TaskNotification
from models.tables import TASKS
from sessions.postgres.tasks.claims import find_claimable_of
from sessions.rules.records import Key, Task


def find_notifications(
    connection: Connection, written: Mapping[Key, Task], *, resumed: Collection[str] = ()
) -> TaskNotification:
    """Return the notification for the tasks that the transaction wrote, and for resumed sessions."""
    tasks = written.values()
    sessions = {task.session_id for task in tasks if task.status in ("pending", "completed")} | set(resumed)
    return TaskNotification(
        claimable=_claimable(connection, tasks, sessions, resumed) if sessions else [],
        freed=sorted({task.claimed_by for task in tasks if task.claimed_by and task.status in SETTLED}),
        settled=[(task.session_id, task.task_id) for task in tasks if task.status in SETTLED],
    )


def _claimable(
    connection: Connection, tasks: Collection[Task], sessions: Collection[str], resumed: Collection[str]
) -> list[Claimable]:
    pending = [task.task_id for task in tasks if task.status == "pending"]
    completed = [task.task_id for task in tasks if task.status == "completed"]
    return find_claimable_of(
        connection,
        sessions,
        TASKS.c.session_id.in_(resumed),
        TASKS.c.task_id.in_(pending),
        TASKS.c.depends_on.op("&&")(cast(completed, ARRAY(Text))),
    )
