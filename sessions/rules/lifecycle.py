"""Rules for sessions themselves: create, rename, pause, resume, complete, delete."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from models.commands.content_ids import FINGERPRINT_LENGTH, content_hash
from models.commands.definitions import Batch, Command, CompleteSession, CreateSession, DeleteSession, RenameSession
from models.commands.payloads import decode_command
from models.commands.responses import make_title, shorten
from models.errors import Conflict, Invalid
from models.field_types import UNFINISHED, SessionStatus
from models.queue.inbox import SHARDS, shard_of
from models.timestamps import format_utc
from sessions.rules.decision import Context, Decision, active_session, existing_session, touch
from sessions.rules.records import Session, Stats
from sessions.rules.state import State
from sessions.rules.tasks import describe_task

OPEN_TASKS = 20
"""Open tasks to load, so that those that end with another are known."""
NAMED_TASKS = 5
"""Open tasks listed when completing a session is rejected; list_tasks lists all."""

TITLE_LENGTH = 100
TASK_TITLE_LENGTH = 40
MOST_IDS = 1_000
"""Sessions created without a session_id that can share one title, participants and context."""
CONTEXT_LENGTH = 500
"""Characters of a session's context in the response to a change; get_session_summary returns more."""


def create_session(state: State, command: CreateSession, context: Context) -> Decision:
    """Create a session; repeating it is a no-op. Raises Conflict if another session has the id."""
    title = (command.title.strip() and command.title) or context.session_id
    if session := state.session(context.session_id):
        if not _is_same(session, command, title):
            raise Conflict(
                f'Another session already has this id: "{session.title}".',
                code="session_exists",
                field="session_id",
                hint="Use that session, or choose another session_id.",
                data=_summary(state, session),
            )
        message = f'"{shorten(title, TITLE_LENGTH)}" already exists'
        if session.status != "active":
            message += f" and is {session.status}; send resume_session to continue it"
        return Decision(message=f"{message}.", data=_summary(state, session) | {"created": False})
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
    data = _describe_briefly(session, Stats()) | {"created": True}
    return Decision(message=f'Started "{title}".', data=data, put=[session])


def goes_on(session: Session, command: Command) -> bool:
    """Check whether the session with a title's id is the one requested, and not completed."""
    if isinstance(command, Batch):
        first = command.commands[0]
        command = decode_command(first.command, first.data)
    return session.status != "completed" and isinstance(command, CreateSession) and _is_same(session, command)


def further_ids(session_id: str) -> Iterator[str]:
    """Generate the alternative ids of a title whose id is taken. All are in the same shard, so that one shard lock
    covers them."""
    words, dash, _ = session_id.rpartition("-")
    shard = shard_of(session_id)
    for number in range(MOST_IDS * SHARDS):
        further = words + dash + content_hash([session_id, number])[:FINGERPRINT_LENGTH]
        if shard_of(further) == shard:
            yield further


def rename_session(state: State, command: RenameSession, context: Context) -> Decision:
    """Rename an active session; repeating it is a no-op."""
    session = active_session(state, context.session_id)
    if session.title == command.title:
        return Decision(message=f'The title is already "{session.title}".', data=_summary(state, session))
    renamed = msgspec.structs.replace(touch(session, context.at), title=command.title)
    return Decision(message=f'Renamed to "{renamed.title}".', data=_summary(state, renamed), put=[renamed])


def pause_session(state: State, context: Context) -> Decision:
    """Pause an active session; repeating it is a no-op."""
    session = existing_session(state, context.session_id)
    if session.status == "completed":
        active_session(state, context.session_id)
    return _change_status(state, session, "paused", context.at)


def resume_session(state: State, context: Context) -> Decision:
    """Resume a paused or completed session; repeating it is a no-op. The response counts the events that wait for
    replay."""
    decision = _change_status(state, existing_session(state, context.session_id), "active", context.at)
    waiting = context.waiting_events
    if not waiting:
        return decision
    events = (
        "1 event that arrived meanwhile is waiting"
        if waiting == 1
        else f"{waiting:,} events that arrived meanwhile are waiting"
    )
    message = f"{shorten(decision.message, 130)} {events} to be replayed."
    return msgspec.structs.replace(decision, message=message, data=decision.data | {"waiting_events": waiting})


def complete_session(state: State, command: CompleteSession, context: Context) -> Decision:
    """Complete an active or paused session; repeating it is a no-op. Raises Conflict listing its open tasks unless they
    are to be cancelled: in a completed session they could be neither claimed nor cancelled."""
    session = existing_session(state, context.session_id)
    decision = _change_status(state, session, "completed", context.at)
    count = state.stats(context.session_id).active_tasks
    if not count or session.status == "completed":
        return decision
    if command.open_tasks == "refuse":
        raise _open_tasks_error(state, session, count)
    decision.data["stats"]["active_tasks"] = 0
    cancelled = f"{count} open tasks" if count > 1 else "1 open task"
    return msgspec.structs.replace(
        decision,
        message=f'Completed "{session.title}" and cancelled {cancelled}.',
        data=decision.data | {"cancelled_tasks": count},
        cancels_open_tasks=context.at,
    )


def delete_session(state: State, command: DeleteSession, context: Context) -> Decision:
    """Delete a session and everything in it. Raises Invalid unless `confirm` repeats its id."""
    session = existing_session(state, context.session_id)
    if command.confirm != context.session_id:
        raise Invalid(
            "Deleting a session requires its id in `confirm`, as a confirmation.",
            code="not_confirmed",
            field="data.confirm",
            expected=context.session_id,
        )
    return Decision(message="Deleted the session and everything in it.", data={"deleted": True}, removed=[session])


def describe_session(session: Session, stats: Stats) -> dict[str, Any]:
    """The summary of a session, as senders see it. In the response to create_session, `created` is replaced by a
    boolean."""
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


def _change_status(state: State, session: Session, status: SessionStatus, at: datetime) -> Decision:
    if session.status == status:
        return Decision(message=f'"{session.title}" is already {status}.', data=_summary(state, session))
    changed = msgspec.structs.replace(
        touch(session, at), status=status, completed_at=at if status == "completed" else None
    )
    word = {"active": "Resumed", "paused": "Paused", "completed": "Completed"}[status]
    return Decision(message=f'{word} "{session.title}".', data=_summary(state, changed), put=[changed])


def _is_same(session: Session, command: CreateSession, title: str = "") -> bool:
    requested = (title or command.title, command.participants, command.context)
    return (session.title, session.participants, session.context) == requested


def _open_tasks_error(state: State, session: Session, count: int) -> Conflict:
    tasks = [task for task in state.tasks(session.session_id) if task.status in UNFINISHED][:NAMED_TASKS]
    titles = " and ".join(f'"{shorten(make_title(task.titled), TASK_TITLE_LENGTH)}"' for task in tasks[:2])
    more = f" and {count - 2} more" if count > 2 and tasks else ""
    named = f": {titles}{more}" if tasks else ""
    return Conflict(
        f'"{session.title}" has {count} open task{"s" if count > 1 else ""}{named}.',
        code="open_tasks",
        field="data.open_tasks",
        expected="no open tasks, or open_tasks: cancel",
        hint='Wait until they finish, cancel each with cancel_task, or send open_tasks: "cancel" to cancel all.',
        data={"open_tasks": [describe_task(task) for task in tasks], "count": count},
    )


def _summary(state: State, session: Session) -> dict[str, Any]:
    return _describe_briefly(session, state.stats(session.session_id))


def _describe_briefly(session: Session, stats: Stats) -> dict[str, Any]:
    """The session as responses to changes show it, without long texts."""
    described = describe_session(session, stats)
    if len(session.context) <= CONTEXT_LENGTH:
        return described
    return described | {"context": shorten(session.context, CONTEXT_LENGTH), "truncated": True}
