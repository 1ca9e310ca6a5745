"""Rules for sessions themselves: create, rename, pause, resume, complete, delete."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from models.commands import CreateSession, DeleteSession, RenameSession
from models.errors import Conflict, Invalid
from models.responses import shorten
from models.timestamps import format_utc
from models.vocabulary import SessionStatus
from sessions.records import Session, Stats
from sessions.rules.decision import Context, Decision, active_session, existing_session, touch
from sessions.state import State


def create_session(state: State, command: CreateSession, context: Context) -> Decision:
    """Start a session; the same again is a no-op. Raises Conflict if another one has the id."""
    title = (command.title.strip() and command.title) or context.session_id
    if session := state.session(context.session_id):
        same = (session.title, session.participants, session.context) == (title, command.participants, command.context)
        if not same:
            raise Conflict(
                f'A session with this id exists already: "{session.title}".',
                code="session_exists",
                field="session_id",
                hint="Go on with it, or create yours under another session_id.",
                data=_summary(state, session),
            )
        return Decision(message=f'"{title}" exists already.', data=_summary(state, session) | {"created": False})
    session = Session(
        session_id=context.session_id,
        title=title,
        participants=command.participants,
        context=command.context,
        status="active",
        created_by=context.source,
        created_at=context.at,
        last_activity_at=context.at,
    )
    data = describe_session(session, Stats()) | {"created": True}
    return Decision(message=f'Started "{title}".', data=data, put=[session])


def rename_session(state: State, command: RenameSession, context: Context) -> Decision:
    """Give an active session another title; the same title is a no-op."""
    session = active_session(state, context.session_id)
    if session.title == command.title:
        return Decision(message=f'The title is "{session.title}" already.', data=_summary(state, session))
    renamed = msgspec.structs.replace(touch(session, context.at), title=command.title)
    return Decision(message=f'Renamed to "{renamed.title}".', data=_summary(state, renamed), put=[renamed])


def pause_session(state: State, context: Context) -> Decision:
    """Pause an active session; repeated, a no-op."""
    session = existing_session(state, context.session_id)
    if session.status == "completed":
        active_session(state, context.session_id)
    return _become(state, session, "paused", context.at)


def resume_session(state: State, context: Context) -> Decision:
    """Make a paused or completed session active; repeated, a no-op. The answer says how many events wait."""
    decision = _become(state, existing_session(state, context.session_id), "active", context.at)
    waiting = context.waiting_events
    if not waiting:
        return decision
    events = "1 event that came meanwhile waits" if waiting == 1 else f"{waiting:,} events that came meanwhile wait"
    message = f"{shorten(decision.message, 130)} {events} to be replayed."
    return msgspec.structs.replace(decision, message=message, data=decision.data | {"waiting_events": waiting})


def complete_session(state: State, context: Context) -> Decision:
    """Complete an active or paused session; repeated, a no-op."""
    return _become(state, existing_session(state, context.session_id), "completed", context.at)


def delete_session(state: State, command: DeleteSession, context: Context) -> Decision:
    """Delete a session with all that is in it. Raises Invalid unless `confirm` repeats its id."""
    session = existing_session(state, context.session_id)
    if command.confirm != context.session_id:
        raise Invalid(
            "Deleting needs the session's id once more, to be sure.",
            code="not_confirmed",
            field="data.confirm",
            expected=context.session_id,
        )
    return Decision(message="Deleted the session with all that was in it.", data={"deleted": True}, removed=[session])


def describe_session(session: Session, stats: Stats) -> dict[str, Any]:
    """The summary of a session, as senders see it. In the answer to create_session `created` says whether it did."""
    end = session.completed_at or session.last_activity_at
    return {
        "session_id": session.session_id,
        "title": session.title,
        "participants": session.participants,
        "context": session.context,
        "status": session.status,
        "created": format_utc(session.created_at),
        "created_at": format_utc(session.created_at),
        "last_activity": format_utc(session.last_activity_at),
        "duration_minutes": round((end - session.created_at).total_seconds() / 60, 1),
        "stats": msgspec.to_builtins(stats),
    }


def _become(state: State, session: Session, status: SessionStatus, at: datetime) -> Decision:
    if session.status == status:
        return Decision(message=f'"{session.title}" is {status} already.', data=_summary(state, session))
    changed = msgspec.structs.replace(
        touch(session, at), status=status, completed_at=at if status == "completed" else None
    )
    word = {"active": "Resumed", "paused": "Paused", "completed": "Completed"}[status]
    return Decision(message=f'{word} "{session.title}".', data=_summary(state, changed), put=[changed])


def _summary(state: State, session: Session) -> dict[str, Any]:
    return describe_session(session, state.stats(session.session_id))
