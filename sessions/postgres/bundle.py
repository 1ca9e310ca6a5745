"""The resume bundle: what somebody who was not there needs to go on with a session, within a budget."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from models.commands import ResumeBundle
from models.errors import NotFound
from models.tables import SessionRow
from sessions.postgres.bundle_sections import MOST_ITEMS, SECTIONS, Section
from sessions.postgres.reach import Reach, stream
from sessions.postgres.session_reads import session_columns, session_item
from sessions.postgres.text_budget import SMALLEST_PIECE, fit, measure

SESSION_SHARE = 0.2
READ_ON = (
    "The rest of what was cut: retrieve_memory and get_artifact with next_offset, get_task. "
    "What was left out: query_memories by type, list_tasks, list_artifacts; search for the conversation."
)


def resume_bundle(connection: Connection, command: ResumeBundle, *, reach: Reach) -> dict[str, Any]:
    """The bundle of the session, or of the latest active one. Raises NotFound."""
    room = command.max_characters
    session_id = reach.session_id or _latest_active(connection, reach)
    row = connection.execute(select(*session_columns(room)).where(SessionRow.session_id == session_id)).one()
    session = fit(session_item(row), int(room * SESSION_SHARE))
    room -= measure(session) + measure(READ_ON)
    sections: dict[str, list[dict[str, Any]]] = {}
    left_out: dict[str, int] = {}
    for section in SECTIONS:
        share = max(int(room * section.share), 0)
        sections[section.name], missing = _take(connection, section, session_id, room=share)
        room -= measure(sections[section.name])
        if missing:
            left_out[section.name] = missing
    conversation = sections.pop("conversation")[::-1]
    bundle: dict[str, Any] = {"session": session, "conversation": conversation, **sections}
    shown = [session, *conversation, *(item for items in sections.values() for item in items)]
    if left_out or any("truncated" in item for item in shown):
        bundle |= {"truncated": True, "left_out": left_out, "read_on": READ_ON}
    return bundle


def _take(connection: Connection, section: Section, session_id: str, *, room: int) -> tuple[list[dict[str, Any]], int]:
    """The items that fit, and how many do not."""
    taken: list[dict[str, Any]] = []
    total = 0
    for row in stream(connection, section.select(session_id, room).limit(MOST_ITEMS)):
        total = row.total
        item = section.item(row, room)
        size = measure(item) + 1
        if size > room or (room < SMALLEST_PIECE and "truncated" in item):
            break
        taken.append(item)
        room -= size
    return taken, total - len(taken)


def _latest_active(connection: Connection, reach: Reach) -> str:
    statement = (
        select(SessionRow.session_id)
        .where(SessionRow.status == "active", reach.within(SessionRow.session_id))
        .order_by(SessionRow.last_activity_at.desc(), SessionRow.session_id.desc())
    )
    session_id = connection.execute(statement.limit(1)).scalar_one_or_none()
    if session_id is None:
        raise NotFound(
            "No session is active.",
            code="session_not_found",
            field="session_id",
            hint="list_sessions shows paused and completed ones; resume_session or create_session goes on.",
        )
    return session_id
