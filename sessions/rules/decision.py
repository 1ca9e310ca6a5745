"""What a rule is given besides the state, and what it decides. Rules change nothing themselves."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from models.errors import Conflict, NotFound
from models.queue.inbox import REPEAT_WINDOW
from sessions.rules.records import Memory, Record, Session
from sessions.rules.state import State


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, and when it was accepted: the time at which it counts as said, however late it is applied."""

    session_id: str
    source: str
    delivery_id: str
    at: datetime
    session_glob: str | None = None
    """Of the sessions that who asks may see."""
    is_unnamed: bool = False
    """No id of the sender's stands for the command: only its content can tell a repeat."""
    upcoming_tasks: frozenset[str] = frozenset()
    """Tasks that the rest of the same all-or-nothing batch will make."""
    waiting_events: int = 0
    """Kept for a replay in the session, which is about to be resumed."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The changes that a command leads to, and the answer to its sender."""

    message: str
    data: dict[str, Any]
    put: list[Record] = []
    removed: list[Session | Memory] = []
    cancels_open_tasks: datetime | None = None
    """When all open tasks of the session are cancelled, if they are."""

    def apply(self, state: State, session_id: str) -> None:
        """Make the changes."""
        for removed in self.removed:
            state.remove(removed)
        if self.cancels_open_tasks is not None:
            state.cancel_open_tasks(session_id, self.cancels_open_tasks)
        for record in self.put:
            state.put(record)


def existing_session(state: State, session_id: str) -> Session:
    """The session, in whatever state. Raises NotFound."""
    if session := state.session(session_id):
        return session
    raise NotFound(
        f"There is no session {session_id!r}.",
        code="session_not_found",
        field="session_id",
        hint="Start it with create_session; list_sessions shows those that exist.",
    )


def active_session(state: State, session_id: str) -> Session:
    """The session, if it takes changes. Raises NotFound, or Conflict that names the way out."""
    session = existing_session(state, session_id)
    if session.status == "active":
        return session
    raise Conflict(
        f'"{session.title}" is {session.status} and takes no changes.',
        code=f"session_{session.status}",
        field="session_id",
        hint="Send resume_session first.",
    )


def is_just_repeated(context: Context, *, source: str, at: datetime) -> bool:
    """Whether what a source said at some moment is said once more by a sender that tries again."""
    within = abs(context.at - at) < REPEAT_WINDOW
    return context.is_unnamed and context.source == source and within


def touch(session: Session, at: datetime) -> Session:
    """The session with this moment as its last activity."""
    return msgspec.structs.replace(session, last_activity_at=max(at, session.last_activity_at))
