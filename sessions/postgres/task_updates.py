"""News of the tasks of sessions, from Postgres."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Text, and_, bindparam, func, or_, select, true
from sqlalchemy.dialects.postgresql import ARRAY

from models.tables import TaskRow
from sessions.postgres.task_reads import OPEN_QUESTION
from sessions.updates import AT_MOST, EXCERPT_LENGTH, TITLE_LENGTH, UNCLAIMED_AFTER, describe_update


def session_updates(
    connection: Connection, session_ids: Collection[str], now: datetime
) -> dict[str, list[dict[str, Any]]]:
    """For each of the sessions that has any, its tasks with news that get_task has not shown, the latest first."""
    if not session_ids:
        return {}
    wanted = bindparam("wanted", list(session_ids), type_=ARRAY(Text))
    sessions = func.unnest(wanted).table_valued("session_id").render_derived("wanted")
    left_lying = func.greatest(TaskRow.updated_at, TaskRow.not_before) < now - UNCLAIMED_AFTER
    columns = (TaskRow.task_id, TaskRow.status, TaskRow.agent_name, TaskRow.updated_at)
    news = (
        select(
            *columns,
            func.left(TaskRow.description, TITLE_LENGTH + 1).label("title"),
            func.left(OPEN_QUESTION, EXCERPT_LENGTH + 1).label("question"),
            func.left(TaskRow.error, EXCERPT_LENGTH + 1).label("error"),
        )
        .where(TaskRow.session_id == sessions.c.session_id)
        .where(or_(TaskRow.shown_at.is_(None), TaskRow.shown_at < TaskRow.updated_at))
        .where(
            or_(
                TaskRow.status.in_(("completed", "failed", "input_required")),
                and_(TaskRow.status == "pending", TaskRow.shown_at.is_(None), left_lying),
            )
        )
        .order_by(TaskRow.updated_at.desc(), TaskRow.position.desc())
        .limit(AT_MOST)
        .lateral("news")
    )
    rows = connection.execute(
        select(sessions.c.session_id, *news.c)
        .select_from(sessions.join(news, true()))
        .order_by(sessions.c.session_id, news.c.updated_at.desc())
    )
    updates: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        updates.setdefault(row.session_id, []).append(_update(row))
    return updates


def _update(row: Row[Any]) -> dict[str, Any]:
    return describe_update(**{name: value for name, value in row._mapping.items() if name != "session_id"})
