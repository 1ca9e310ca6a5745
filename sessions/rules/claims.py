"""Rules for the commands of a claim's holder: complete, fail, ask. The claim token is all that the holder needs,
whatever the session's status, until another agent claims the task. Claims and leases are decided elsewhere."""

from __future__ import annotations

from datetime import timedelta

import msgspec
from msgspec import Raw

from models.commands.agent_commands import NOTHING, AskTask, ClaimCommand, CompleteTask, FailTask
from models.commands.content_ids import same_json
from models.commands.responses import make_title
from models.errors import Conflict, Rejected
from sessions.rules.artifacts import put_artifact
from sessions.rules.decision import Context, Decision, touch
from sessions.rules.records import Key, Question, Record, Session, Task, task_key
from sessions.rules.state import State
from sessions.rules.tasks import describe_task

FIRST_BACKOFF_SECONDS = 10
LAST_BACKOFF_SECONDS = 600
"""Delay before the next attempt: it doubles each time, since most transient failures pass within minutes."""


def complete_task(state: State, command: CompleteTask, context: Context) -> Decision:
    """Complete the task with its output and artifacts; repeating it is a no-op. Raises Conflict when the claim is lost
    or the task was cancelled."""
    session, task = _require_claim(state, command, context)
    output = None if command.output == NOTHING else command.output
    title = make_title(task.titled)
    artifacts = [artifact.artifact_id for artifact in command.artifacts]
    if task.status == "completed":
        if not _same(task.output, output):
            raise _finished_error(task, title)
        data = describe_task(task) | {"artifacts": artifacts}
        return Decision(message=f'"{title}" is already completed.', data=data)
    put: dict[Key, Record] = {}
    for number, artifact in enumerate(command.artifacts):
        try:
            added = put_artifact(state, artifact, context, session=session, pending=put).put
            put |= {record.key: record for record in added}
        except Rejected as error:
            error.field = f"artifacts[{number}].{(error.field or '').removeprefix('data.')}"
            raise
    completed = msgspec.structs.replace(
        task,
        status="completed",
        output=output,
        error=None,
        lease_expires_at=None,
        updated_at=context.at,
        finished_at=context.at,
        shown_at=None,
    )
    data = describe_task(completed) | {"artifacts": artifacts}
    return Decision(
        message=f'Completed "{title}".', data=data, put=[*put.values(), completed, touch(session, context.at)]
    )


def fail_task(state: State, command: FailTask, context: Context) -> Decision:
    """Fail the task and end the claim. If the failure is retryable and attempts remain, requeue the task with
    exponential backoff. Raises Conflict when the claim is lost or the task was cancelled or completed."""
    session, task = _require_claim(state, command, context)
    title = make_title(task.titled)
    if task.status == "completed":
        raise _finished_error(task, title)
    released = msgspec.structs.replace(
        task,
        error=command.error,
        claim_token=None,
        lease_expires_at=None,
        updated_at=context.at,
        shown_at=None,
    )
    if command.retryable and task.attempt < task.max_attempts:
        seconds = min(FIRST_BACKOFF_SECONDS * 2 ** max(task.attempt - 1, 0), LAST_BACKOFF_SECONDS)
        failed = msgspec.structs.replace(
            released,
            status="pending",
            claimed_by=None,
            not_before=context.at + timedelta(seconds=seconds),
            finished_at=None,
        )
        message = f'"{title}" failed; it will be retried in {seconds} s.'
    else:
        failed = msgspec.structs.replace(released, status="failed", finished_at=context.at)
        message = f'"{title}" failed.'
    put: list[Record] = [failed, touch(session, context.at)]
    return Decision(message=message, data=describe_task(failed), put=put)


def ask_task(state: State, command: AskTask, context: Context) -> Decision:
    """Ask the delegating sender a question, and suspend the task until it is answered; repeating it is a no-op. Raises
    Conflict when the claim is lost or the task is finished."""
    session, task = _require_claim(state, command, context)
    title = make_title(task.titled)
    questions = msgspec.json.decode(task.questions, type=list[Question])
    if task.status == "input_required" and questions[-1].question == command.question:
        return Decision(
            message=f'"{title}" is already waiting for the answer to this question.', data=describe_task(task)
        )
    if task.status in ("completed", "input_required"):
        raise _finished_error(task, title)
    questions.append(Question(question=command.question, asked_at=context.at))
    asking = msgspec.structs.replace(
        task,
        status="input_required",
        questions=Raw(msgspec.json.encode(questions)),
        error=None,
        lease_expires_at=None,
        updated_at=context.at,
        finished_at=None,
        shown_at=None,
    )
    put: list[Record] = [asking, touch(session, context.at)]
    return Decision(message=f'"{title}" is waiting for an answer.', data=describe_task(asking), put=put)


def claim_lost() -> Conflict:
    """The error for a claim token that no longer holds its task."""
    return Conflict(
        "This claim no longer holds its task: it was released, requeued or claimed by another agent.",
        code="claim_lost",
        field="claim_token",
        hint="Stop working on this task, and claim another.",
    )


def _require_claim(state: State, command: ClaimCommand, context: Context) -> tuple[Session, Task]:
    session = state.session(context.session_id)
    task = state.find(task_key(context.session_id, command.task_id), Task)
    if session is None or task is None or task.claim_token != command.claim:
        raise claim_lost()
    if task.status == "cancelled":
        raise Conflict(
            f'"{make_title(task.titled)}" was cancelled.',
            code="task_cancelled",
            field="claim_token",
            hint="Stop working on this task, and claim another.",
        )
    return session, task


def _finished_error(task: Task, title: str) -> Conflict:
    state = "waiting for an answer" if task.status == "input_required" else task.status
    return Conflict(
        f'"{title}" is already {state}.',
        code="task_finished" if task.status != "input_required" else "task_asking",
        field="claim_token",
        data=describe_task(task),
        hint="Claim another task.",
    )


def _same(one: Raw | None, other: Raw | None) -> bool:
    return one is other if one is None or other is None else same_json(one, other)
