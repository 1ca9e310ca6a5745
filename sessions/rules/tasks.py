"""Rules for delegated tasks, for those who delegate: delegate, cancel, answer. What agents do is in `claims`."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from msgspec import Raw

from models.commands.content_ids import derive_id, same_json
from models.commands.definitions import AnswerTask, CancelTask, DelegateTask
from models.commands.responses import shorten
from models.errors import Conflict, Invalid, NotFound
from models.field_types import FINISHED, UNFINISHED
from models.timestamps import format_utc, is_relative, parse_moment
from sessions.rules.decision import (
    Context,
    Decision,
    active_session,
    existing_session,
    is_just_repeated,
    touch,
)
from sessions.rules.records import Question, Record, Task, task_key
from sessions.rules.state import State
from sessions.rules.task_endings import DEAD, TITLE_LENGTH, cancel


def delegate_task(state: State, command: DelegateTask, context: Context) -> Decision:
    """Put a task into the queue. The same under the sender's own id, or without one as an unfinished task that its
    source has just delegated, returns the one that is there. Raises NotFound or Invalid for dependencies, Conflict for
    the id."""
    session = active_session(state, context.session_id)
    digest = description_hash(command.agent_name, command.description)
    task_id = command.task_id or _free_id(state, command, context, count=state.alike(context.session_id, digest))
    task = Task(
        session_id=context.session_id,
        task_id=task_id,
        agent_name=command.agent_name,
        task_type=command.task_type,
        description=command.description,
        description_hash=digest,
        priority=command.priority,
        input_data=command.input_data,
        depends_on=list(dict.fromkeys(command.depends_on)),
        not_before=None
        if command.not_before is None
        else parse_moment(command.not_before, field="not_before", now=context.at, ahead=True),
        max_attempts=command.max_attempts,
        created_by=context.source,
        created_at=context.at,
        updated_at=context.at,
    )
    if command.task_id is None and not command.allow_duplicate:
        for other in state.tasks(context.session_id):
            if (
                other.description_hash == digest
                and other.status in UNFINISHED
                and is_just_repeated(context, source=other.created_by, at=other.created_at)
                and _same(other, task, command)
            ):
                return _delegated(state, other, context, created=False)
    known = state.find(task.key, Task)
    if known is not None:
        if known.description != task.description or not _same(known, task, command):
            raise Conflict(
                f"Another task has this id: {shorten(known.description, TITLE_LENGTH)}",
                code="task_exists",
                field="data.task_id",
                hint="Give this one another task_id, or none.",
                data=describe_task(known),
            )
        return _delegated(state, known, context, created=False)
    _check_dependencies(state, task, context)
    return _delegated(state, task, context, created=True, put=[task, touch(session, context.at)])


def cancel_task(state: State, command: CancelTask, context: Context) -> Decision:
    """Cancel an unfinished task, in an active or paused session; repeated, a no-op. Raises NotFound or Conflict."""
    session = existing_session(state, context.session_id)
    if session.status == "completed":
        active_session(state, context.session_id)
    task = _existing_task(state, command.task_id, context)
    title = shorten(task.description, TITLE_LENGTH)
    if task.status == "cancelled":
        return Decision(message=f'"{title}" is cancelled already.', data=describe_task(task))
    if task.status in FINISHED:
        raise Conflict(
            f'"{title}" is {task.status} already.',
            code="task_finished",
            field="data.task_id",
            data=describe_task(task),
            hint="There is nothing to cancel; get_task shows its result.",
        )
    cancelled = cancel(task, command.reason or None, context.at)
    put: list[Record] = [cancelled, touch(session, context.at)]
    return Decision(message=f'Cancelled "{title}".', data=describe_task(cancelled), put=put)


def answer_task(state: State, command: AnswerTask, context: Context) -> Decision:
    """Answer the open question of a task, which goes back to the queue; repeated, a no-op."""
    session = active_session(state, context.session_id)
    task = _existing_task(state, command.task_id, context)
    title = shorten(task.description, TITLE_LENGTH)
    questions = msgspec.json.decode(task.questions, type=list[Question])
    if task.status != "input_required" or not questions:
        if questions and questions[-1].answer == command.answer:
            return Decision(message=f'"{title}" has this answer already.', data=describe_task(task))
        raise Conflict(
            f'"{title}" asks nothing: it is {task.status}.',
            code="task_not_asking",
            field="data.task_id",
            data=describe_task(task),
            hint="get_task shows its state; only a task that is input_required can be answered.",
        )
    questions[-1] = msgspec.structs.replace(questions[-1], answer=command.answer, answered_at=context.at)
    answered = msgspec.structs.replace(
        task,
        status="pending",
        questions=Raw(msgspec.json.encode(questions)),
        attempt=max(task.attempt - 1, 0),  # A question is no failed attempt.
        claimed_by=None,
        claim_token=None,
        lease_expires_at=None,
        updated_at=context.at,
        shown_at=None,
    )
    put: list[Record] = [answered, touch(session, context.at)]
    return Decision(message=f'Answered; "{title}" goes on.', data=describe_task(answered), put=put)


def describe_task(task: Task) -> dict[str, Any]:
    """A task as the answer to a write shows it: its state, not its content."""
    described = {
        "task_id": task.task_id,
        "agent_name": task.agent_name,
        "task_type": task.task_type,
        "status": task.status,
        "priority": task.priority,
        "depends_on": task.depends_on,
        "not_before": format_utc(task.not_before) if task.not_before else None,
        "attempt": task.attempt,
        "max_attempts": task.max_attempts,
        "created_at": format_utc(task.created_at),
        "updated_at": format_utc(task.updated_at),
    }
    return {name: value for name, value in described.items() if value is not None and value != []}


def description_hash(agent_name: str | None, description: str) -> str:
    """By which a repeated request is recognized, and counted: what is asked, and of whom."""
    asked = f"{agent_name or ''}\n{' '.join(description.split()).casefold()}"
    return hashlib.sha256(asked.encode()).hexdigest()


def _delegated(
    state: State, task: Task, context: Context, *, created: bool, put: list[Record] | None = None
) -> Decision:
    title = shorten(task.description, TITLE_LENGTH)
    online = state.agents_online(task, context.at)
    ahead = state.ahead_of(task, context.session_glob)
    data = describe_task(task) | {"created": created, "agents_online": online}
    if task.status == "pending":
        data["ahead_in_queue"] = ahead if created else max(ahead - 1, 0)
    whom = task.agent_name or f"any agent for {task.task_type}"
    message = f'Delegated "{title}" to {whom}.' if created else f'"{title}" is delegated already; it is {task.status}.'
    if not online and task.status == "pending":
        data["warning"] = "No agent that takes it is online at the moment; it waits until one is."
        message += " No agent is online yet."
    return Decision(message=message, data=data, put=put or [])


def _free_id(state: State, command: DelegateTask, context: Context, *, count: int) -> str:
    """From the content, and from how many times it was asked before."""
    number = count
    while True:
        task_id = derive_id("task", command.description, [command.agent_name, command.description, number])
        if state.find(task_key(context.session_id, task_id), Task) is None:
            return task_id
        number += 1


def _check_dependencies(state: State, task: Task, context: Context) -> None:
    for number, task_id in enumerate(task.depends_on):
        known = state.find(task_key(context.session_id, task_id), Task)
        if known is None and task_id not in context.upcoming_tasks and task_id != task.task_id:
            raise NotFound(
                f"There is no task {task_id!r} in this session to depend on.",
                code="task_not_found",
                field=f"data.depends_on[{number}]",
                hint="Delegate that task first, or in the same atomic batch.",
            )
        if known is not None and known.status in DEAD:
            raise Conflict(
                f'"{shorten(known.description, TITLE_LENGTH)}" is {known.status}: what depends on it never begins.',
                code="dependency_failed",
                field=f"data.depends_on[{number}]",
                hint="Delegate that one anew under another task_id, and depend on the new one.",
                data=describe_task(known),
            )
    if path := _cycle(state, task):
        raise Invalid(
            f"The tasks would wait for each other: {' → '.join(path)}.",
            code="dependency_cycle",
            field="data.depends_on",
            hint="Leave out one of these dependencies.",
        )


def _cycle(state: State, task: Task) -> list[str] | None:
    """A path from the task back to itself. Only tasks of the same batch can point forward, and those are in state."""
    if task.task_id not in task.depends_on and not state.is_awaited(task):
        return None
    waiting_for: dict[str, str] = {}
    """Of each task that was reached, one that waits for it."""
    reached = [task]
    while reached:
        waiting = reached.pop()
        for task_id in waiting.depends_on:
            if task_id == task.task_id:
                return _path_to(waiting.task_id, waiting_for, start=task.task_id)
            known = state.find(task_key(task.session_id, task_id), Task)
            if known is not None and task_id not in waiting_for:
                waiting_for[task_id] = waiting.task_id
                reached.append(known)
    return None


def _path_to(last: str, waiting_for: dict[str, str], *, start: str) -> list[str]:
    """From the start to the last task, and back to the start."""
    path = [start]
    while last != start:
        path.append(last)
        last = waiting_for[last]
    return [start, *reversed(path)]


def _existing_task(state: State, task_id: str, context: Context) -> Task:
    task = state.find(task_key(context.session_id, task_id), Task)
    if task is None:
        raise NotFound(
            f"There is no task {task_id!r} in this session.",
            code="task_not_found",
            field="data.task_id",
            hint="list_tasks shows the tasks of a session.",
        )
    return task


def _same(known: Task, task: Task, command: DelegateTask) -> bool:
    """Whether both ask for the same, but for the description. A time such as `in 2h` is meant as of the first."""
    plain = ["agent_name", "task_type", "priority", "depends_on", "max_attempts"]
    if command.not_before is None or not is_relative(command.not_before):
        plain.append("not_before")
    return all(getattr(known, name) == getattr(task, name) for name in plain) and same_json(
        known.input_data, task.input_data
    )
