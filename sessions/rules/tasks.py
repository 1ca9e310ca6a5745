"""Rules for senders that delegate tasks: delegate, cancel, answer. The commands of agents are in `claims`."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from msgspec import Raw

from models.commands.content_ids import derive_id, same_json
from models.commands.definitions import AnswerTask, CancelTask, DelegateTask
from models.commands.responses import make_title
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
from sessions.rules.task_endings import DEAD, cancel


def delegate_task(state: State, command: DelegateTask, context: Context) -> Decision:
    """Enqueue a task. A repeat returns the existing task: with the sender's own id, or without an id if the source has
    just delegated the same task and it is unfinished. Raises NotFound or Invalid for dependencies, Conflict for the
    id."""
    session = active_session(state, context.session_id)
    digest = description_hash(command.agent_name, command.description)
    task_id = command.task_id or _next_free_id(state, command, context, count=state.alike(context.session_id, digest))
    task = Task(
        session_id=context.session_id,
        task_id=task_id,
        agent_name=command.agent_name,
        task_type=command.task_type,
        title=command.title.strip() or make_title(command.description),
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
                return _delegated_decision(state, other, context, created=False)
    known = state.find(task.key, Task)
    if known is not None:
        if known.description != task.description or not _same(known, task, command):
            raise Conflict(
                f"Another task already has this id: {make_title(known.titled)}",
                code="task_exists",
                field="data.task_id",
                hint="Choose another task_id, or omit it to have one generated.",
                data=describe_task(known),
            )
        return _delegated_decision(state, known, context, created=False)
    _check_dependencies(state, task, context)
    return _delegated_decision(state, task, context, created=True, put=[task, touch(session, context.at)])


def cancel_task(state: State, command: CancelTask, context: Context) -> Decision:
    """Cancel an unfinished task in an active or paused session; repeating it is a no-op. Raises NotFound or
    Conflict."""
    session = existing_session(state, context.session_id)
    if session.status == "completed":
        active_session(state, context.session_id)
    task = _existing_task(state, command.task_id, context)
    title = make_title(task.titled)
    if task.status == "cancelled":
        return Decision(message=f'"{title}" is already cancelled.', data=describe_task(task))
    if task.status in FINISHED:
        raise Conflict(
            f'"{title}" is already {task.status}.',
            code="task_finished",
            field="data.task_id",
            data=describe_task(task),
            hint="Nothing is left to cancel; get_task shows its result.",
        )
    cancelled = cancel(task, command.reason or None, context.at)
    put: list[Record] = [cancelled, touch(session, context.at)]
    return Decision(message=f'Cancelled "{title}".', data=describe_task(cancelled), put=put)


def answer_task(state: State, command: AnswerTask, context: Context) -> Decision:
    """Answer the open question of a task and requeue the task; repeating it is a no-op."""
    session = active_session(state, context.session_id)
    task = _existing_task(state, command.task_id, context)
    title = make_title(task.titled)
    questions = msgspec.json.decode(task.questions, type=list[Question])
    if task.status != "input_required" or not questions:
        if questions and questions[-1].answer == command.answer:
            return Decision(message=f'"{title}" already has this answer.', data=describe_task(task))
        raise Conflict(
            f'"{title}" has no open question; its status is {task.status}.',
            code="task_not_asking",
            field="data.task_id",
            data=describe_task(task),
            hint="Only a task with status input_required can be answered; get_task shows the status.",
        )
    questions[-1] = msgspec.structs.replace(questions[-1], answer=command.answer, answered_at=context.at)
    answered = msgspec.structs.replace(
        task,
        status="pending",
        questions=Raw(msgspec.json.encode(questions)),
        attempt=max(task.attempt - 1, 0),  # Asking a question does not use up an attempt.
        claimed_by=None,
        claim_token=None,
        lease_expires_at=None,
        updated_at=context.at,
        shown_at=None,
    )
    put: list[Record] = [answered, touch(session, context.at)]
    return Decision(
        message=f'Answered the question; "{title}" is back in the queue.', data=describe_task(answered), put=put
    )


def describe_task(task: Task) -> dict[str, Any]:
    """A task as responses to writes show it: its state, not its content."""
    described = {
        "task_id": task.task_id,
        "title": task.title or make_title(task.description),
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
    """Identifies repeated requests, for comparing and counting: the request and the agent."""
    request = f"{agent_name or ''}\n{' '.join(description.split()).casefold()}"
    return hashlib.sha256(request.encode()).hexdigest()


def _delegated_decision(
    state: State, task: Task, context: Context, *, created: bool, put: list[Record] | None = None
) -> Decision:
    title = make_title(task.titled)
    online = state.agents_online(task, context.at)
    ahead = state.ahead_of(task, context.session_glob)
    data = describe_task(task) | {"created": created, "agents_online": online}
    if task.status == "pending":
        data["ahead_in_queue"] = ahead if created else max(ahead - 1, 0)
    recipient = task.agent_name or f"any agent for {task.task_type}"
    message = (
        f'Delegated "{title}" to {recipient}.'
        if created
        else f'"{title}" is already delegated; its status is {task.status}.'
    )
    if not online and task.status == "pending":
        data["warning"] = "No agent that can claim this task is online; it stays queued until one is."
        message += " No agent is online yet."
    return Decision(message=message, data=data, put=put or [])


def _next_free_id(state: State, command: DelegateTask, context: Context, *, count: int) -> str:
    """Derive an id from the content and the number of earlier requests of the same."""
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
                f"Dependency {task_id!r} not found in this session.",
                code="task_not_found",
                field=f"data.depends_on[{number}]",
                hint="Delegate the dependency first, or in the same atomic batch.",
            )
        if known is not None and known.status in DEAD:
            raise Conflict(
                f'"{make_title(known.titled)}" is {known.status}: its dependents would never start.',
                code="dependency_failed",
                field=f"data.depends_on[{number}]",
                hint="Delegate the dependency again under another task_id, and depend on the new task.",
                data=describe_task(known),
            )
    if path := _cycle(state, task):
        raise Invalid(
            f"The dependencies form a cycle: {' → '.join(path)}.",
            code="dependency_cycle",
            field="data.depends_on",
            hint="Remove one of these dependencies.",
        )


def _cycle(state: State, task: Task) -> list[str] | None:
    """A path from the task back to itself. Only tasks of the same batch can refer forward, and those are in the
    state."""
    if task.task_id not in task.depends_on and not state.is_awaited(task):
        return None
    waiting_for: dict[str, str] = {}
    """For each task reached, a task that waits for it."""
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
    """The path from the start to the last task, and back to the start."""
    path = [start]
    while last != start:
        path.append(last)
        last = waiting_for[last]
    return [start, *reversed(path)]


def _existing_task(state: State, task_id: str, context: Context) -> Task:
    task = state.find(task_key(context.session_id, task_id), Task)
    if task is None:
        raise NotFound(
            f"Task {task_id!r} not found in this session.",
            code="task_not_found",
            field="data.task_id",
            hint="list_tasks shows the tasks of a session.",
        )
    return task


def _same(known: Task, task: Task, command: DelegateTask) -> bool:
    """Compare all but the description. A relative time such as `in 2h` counts from the first request."""
    plain = ["agent_name", "task_type", "priority", "depends_on", "max_attempts"]
    if command.title.strip():
        plain.append("title")
    if command.not_before is None or not is_relative(command.not_before):
        plain.append("not_before")
    return all(getattr(known, name) == getattr(task, name) for name in plain) and same_json(
        known.input_data, task.input_data
    )
