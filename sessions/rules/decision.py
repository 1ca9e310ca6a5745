"""The input of a rule besides the state, and its decision. Rules change nothing themselves."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from models.errors import Conflict, NotFound
from models.queue.inbox import REPEAT_WINDOW
from sessions.rules.records import Memory, Record, Session
from sessions.rules.state import State


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """The sender of a command, and the time of acceptance: the command counts as sent at that time, however late it is
    applied."""

    session_id: str
    source: str
    delivery_id: str
    at: datetime
    session_glob: str | None = None
    """Pattern of the sessions that the sender may see."""
    is_unnamed: bool = False
    """The sender gave no delivery id, so only the content identifies a repeat."""
    upcoming_tasks: frozenset[str] = frozenset()
    """Tasks that the rest of the same atomic batch will create."""
    waiting_events: int = 0
    """Events kept for replay in the session that is about to be resumed."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The changes that a command makes, and the response to its sender."""

    message: str
    data: dict[str, Any]
    put: list[Record] = []
    removed: list[Session | Memory] = []
    cancels_open_tasks: datetime | None = None
    """The time at which all open tasks of the session are cancelled, if they are."""

    def apply(self, state: State, session_id: str) -> None:
        """Apply the changes to the state."""
        for removed in self.removed:
            state.remove(removed)
        if self.cancels_open_tasks is not None:
            state.cancel_open_tasks(session_id, self.cancels_open_tasks)
        for record in self.put:
            state.put(record)


def existing_session(state: State, session_id: str) -> Session:
    """The session, whatever its status. Raises NotFound."""
    if session := state.session(session_id):
        return session
    raise NotFound(
        f"Session {session_id!r} not found.",
        code="session_not_found",
        field="session_id",
        hint="Create it with create_session; list_sessions shows existing sessions.",
    )


def active_session(state: State, session_id: str) -> Session:
    """The session, if it accepts changes. Raises NotFound, or Conflict with the command that resumes it."""
    session = existing_session(state, session_id)
    if session.status == "active":
        return session
    raise Conflict(
        f'"{session.title}" is {session.status} and accepts no changes.',
        code=f"session_{session.status}",
        field="session_id",
        hint="Send resume_session first.",
    )


def is_just_repeated(context: Context, *, source: str, at: datetime) -> bool:
    """Check whether a retrying sender repeats a statement that the source made at this time."""
    within = abs(context.at - at) < REPEAT_WINDOW
    return context.is_unnamed and context.source == source and within


def touch(session: Session, at: datetime) -> Session:
    """The session with this time as its last activity."""
    return msgspec.structs.replace(session, last_activity_at=max(at, session.last_activity_at))
