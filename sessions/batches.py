"""Batches: several commands on one session, all or nothing, or each for itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from models.commands import Command, DelegateTask, ReadCommand, name_of
from models.errors import Rejected
from models.inbox import Entry
from models.responses import shorten
from sessions.answers import Answer
from sessions.journal import Event, make_event
from sessions.reading_time import exhausted
from sessions.rules import decide
from sessions.rules.decision import Context
from sessions.state import State
from sessions.store import too_slow

OUT_OF_TIME_CODES = (too_slow().code, exhausted().code)

Read = Callable[[ReadCommand], Answer]


def run_batch(
    state: State,
    commands: Sequence[Command],
    mode: Literal["atomic", "partial"],
    context: Context,
    *,
    entry: Entry,
    events: list[Event],
    read: Read,
) -> Answer:
    """Run the commands on `state` in order and answer for each. In atomic mode the first that is refused raises its
    error, with the place in the batch, and the caller gives up `state`; in partial mode it is only reported, and so is
    a read for which there is no time in either: it says nothing against what the batch changes."""
    if mode == "atomic":
        upcoming = frozenset(c.task_id for c in commands if isinstance(c, DelegateTask) and c.task_id)
        context = msgspec.structs.replace(context, upcoming_tasks=upcoming)
    results: list[dict[str, Any]] = []
    for number, command in enumerate(commands):
        name = name_of(command)
        try:
            answer = _run(state, command, context, entry=entry, events=events, read=read)
            results.append({"command": name, "status": "success", "message": answer.message, "data": answer.data})
        except Rejected as error:
            if error.field:
                error.field = f"data.commands[{number}].{error.field}"
            refused = {"command": name, "status": "error", "message": error.message, "error": error.body()}
            if error.data:
                refused["data"] = error.data
            if mode == "atomic" and error.code not in OUT_OF_TIME_CODES:
                error.message = shorten(f"Nothing was done: command {number + 1} ({name}) was refused. {error.message}")
                error.data = {"processed": 0, "failed_item": number, "item": refused}
                raise
            if state.session(context.session_id):
                events.append(make_event(entry, name, "rejected", error.message, {"code": error.code}))
            results.append(refused)
    failed = sum(result["status"] == "error" for result in results)
    done = len(results) - failed
    message = f"Did all {done} commands" if not failed else f"Did {done} of {len(results)} commands; {failed} refused"
    if same := sum(_is_repeat(result) for result in results):
        message += f"; {same} of them changed nothing, as {'it was' if same == 1 else 'they were'} there already"
    message += "."
    return Answer(data={"results": results, "processed": done, "failed": failed}, message=message)


def _is_repeat(result: dict[str, Any]) -> bool:
    return result["status"] == "success" and result["data"].get("created") is False and "outcome" not in result["data"]


def _run(state: State, command: Command, context: Context, *, entry: Entry, events: list[Event], read: Read) -> Answer:
    if isinstance(command, ReadCommand):
        return read(command)
    decision = decide(state, command, context)
    decision.apply(state, context.session_id)
    if state.session(context.session_id):
        events.append(make_event(entry, name_of(command), "applied", decision.message, decision.data))
    return Answer(data=decision.data, message=decision.message)
