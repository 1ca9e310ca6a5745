"""Reads of tasks: one with its result or question, and the list in the order of claiming."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, all_, func, literal, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import aggregate_order_by

from models import field_types as v
from models.commands.definitions import GetTask, ListTasks
from models.commands.responses import make_title
from models.tables import SESSIONS, TASKS, titled
from sessions.postgres.reads.partial_values import json_excerpt, text_excerpt
from sessions.postgres.reads.read_scope import during, missing_in, stream, within
from sessions.reads.pagination import RowPosition, decode_cursor, fill
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import Page
from sessions.reads.serializers import TASK_TIMES, task_item, whole_task
from sessions.responses.task_updates import seen_after

OPEN_QUESTION = TASKS.c.questions.op("->")(-1).op("->>")("question")
"""The agent's last question, which is open while the task is input_required."""


class TaskPosition(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The end of a page of tasks, among the unfinished (by priority) or the finished ones (by finished_at)."""

    position: RowPosition
    priority: v.Priority | None = None
    finished_at: datetime | None = None


def get_task(connection: Connection, command: GetTask, *, read_scope: ReadScope) -> dict[str, Any]:
    """Return a complete task; with `offset` only the rest of its long text: the output, or the description without one.
    Marks the state as seen by the reader's source. Raises NotFound."""
    room, offset = command.max_characters, command.offset
    columns = [
        *task_columns(room, offset=offset),
        *json_excerpt(TASKS.c.output, "output", room=room, offset=offset),
        *json_excerpt(TASKS.c.input_data, "input_data", room=room),
        *json_excerpt(TASKS.c.questions, "questions", room=room),
    ]
    this = (TASKS.c.session_id == read_scope.session_id, TASKS.c.task_id == command.task_id)
    row = connection.execute(select(*columns).where(*this)).one_or_none()
    if row is None:
        raise missing_in(connection, read_scope, "task", command.task_id)
    if read_scope.source is not None:
        _mark_seen(connection, row, read_scope.source)
    return whole_task(row._mapping, offset=offset, room=room)


def list_tasks(connection: Connection, command: ListTasks, *, read_scope: ReadScope) -> Page:
    """List tasks without input and output: first the unfinished by priority and age, which is the order of claiming;
    then the finished, the latest first."""
    rows = _in_order(connection, command, read_scope)
    entries = ((_position(row), task_item(row._mapping, titled=read_scope.session_id is None)) for row in rows)
    return fill(entries, limit=command.limit, room=command.max_characters)


def read_task_titles(connection: Connection, task_ids: Sequence[str], *, read_scope: ReadScope) -> dict[str, str]:
    """Return the titles of those of these tasks of a session that exist, by their ids."""
    if not task_ids:
        return {}
    these = (TASKS.c.session_id == read_scope.require_session(), TASKS.c.task_id.in_(task_ids))
    rows = connection.execute(select(TASKS.c.task_id, titled(TASKS.c).label("titled")).where(*these))
    return {row.task_id: make_title(row.titled) for row in rows}


def task_columns(room: int, *, offset: int = 0) -> Sequence[ColumnElement[Any]]:
    """Return the columns for `sessions.reads.serializers.task_item`."""
    needed = TASKS.alias()
    dependency = func.json_build_object("task_id", needed.c.task_id, "status", needed.c.status)
    missing = (
        select(func.json_agg(aggregate_order_by(dependency, needed.c.position)))
        .where(needed.c.session_id == TASKS.c.session_id, needed.c.task_id == func.any(TASKS.c.depends_on))
        .where(needed.c.status != "completed", TASKS.c.finished_at.is_(None))
    )
    return [
        *(TASKS.c[name] for name in _PLAIN + TASK_TIMES),
        missing.scalar_subquery().label("blocked_by"),
        *text_excerpt(TASKS.c.description, "description", room=room, offset=offset),
        *text_excerpt(OPEN_QUESTION, "question", room=room),
        *text_excerpt(TASKS.c.error, "error", room=room),
        *text_excerpt(TASKS.c.cancel_reason, "cancel_reason", room=room),
        *json_excerpt(TASKS.c.progress, "progress", room=room),
    ]


_PLAIN = (
    *("session_id", "task_id", "position", "agent_name", "task_type", "title", "priority", "depends_on"),
    *("status", "attempt", "max_attempts", "claimed_by", "created_by"),
)


def _in_order(connection: Connection, command: ListTasks, read_scope: ReadScope) -> Iterator[Row[Any]]:
    after = decode_cursor(command.cursor, TaskPosition)
    statement = (
        select(*task_columns(command.max_characters // 2), SESSIONS.c.title.label("session_title"))
        .join(SESSIONS, SESSIONS.c.session_id == TASKS.c.session_id)
        .where(within(read_scope, TASKS.c.session_id), during(read_scope, command, TASKS.c.updated_at))
        .limit(command.limit + 1)
    )
    for name in ("status", "agent_name", "task_type"):
        if (wanted := getattr(command, name)) is not None:
            statement = statement.where(TASKS.c[name] == wanted)
    if after is None or after.finished_at is None:
        unfinished = statement.where(TASKS.c.finished_at.is_(None))
        if after is not None and after.priority is not None:
            later = or_(TASKS.c.priority < after.priority, TASKS.c.position > after.position)
            unfinished = unfinished.where(TASKS.c.priority <= after.priority, later)
        yield from stream(connection, unfinished.order_by(TASKS.c.priority.desc(), TASKS.c.position))
    finished = statement.where(TASKS.c.finished_at.is_not(None))
    if after is not None and after.finished_at is not None:
        end = (after.finished_at, after.position)
        finished = finished.where(tuple_(TASKS.c.finished_at, TASKS.c.position) < end)
    yield from stream(connection, finished.order_by(TASKS.c.finished_at.desc(), TASKS.c.position.desc()))


def _position(row: Row[Any]) -> TaskPosition:
    if row.finished_at is not None:
        return TaskPosition(position=row.position, finished_at=row.finished_at)
    return TaskPosition(position=row.position, priority=row.priority)


def _mark_seen(connection: Connection, row: Row[Any], source: str) -> None:
    """Record that the source has seen this state, identified by `updated_at` since clocks differ. Skips a task that
    another transaction is changing or has just changed: it has a new update."""
    this = (TASKS.c.session_id == row.session_id, TASKS.c.task_id == row.task_id)
    unseen = or_(
        TASKS.c.shown_at.is_(None), TASKS.c.shown_at < TASKS.c.updated_at, literal(source) != all_(TASKS.c.seen_by)
    )
    shown = (
        select(TASKS.c.shown_at, TASKS.c.seen_by)
        .where(*this, TASKS.c.updated_at == row.updated_at, TASKS.c.status == row.status, unseen)
        .with_for_update(skip_locked=True, key_share=True)
    )
    before = connection.execute(shown).one_or_none()
    if before is None:
        return
    at = {"shown_at": before.shown_at, "updated_at": row.updated_at}
    if (seen_by := seen_after(before.seen_by, source, **at)) is not None:
        connection.execute(update(TASKS).where(*this).values(shown_at=row.updated_at, seen_by=seen_by))
