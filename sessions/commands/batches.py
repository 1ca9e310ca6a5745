"""Batches: several commands on one session, all or nothing, or each on its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from models.commands.definitions import Command, DelegateTask, ReadCommand, name_of
from models.commands.responses import shorten
from models.errors import OUT_OF_TIME_CODES, Rejected
from models.queue.inbox import Entry
from sessions.reads.results import ReadResult
from sessions.reads.truncation import measure
from sessions.rules.decision import Context
from sessions.rules.dispatch import decide
from sessions.rules.event_log import EVENT_FIELDS, Event, make_event
from sessions.rules.state import State

Read = Callable[[ReadCommand], ReadResult]

LEAST_OF_READ = 200
"""Characters. With less room a read is not executed. Also the allowance for the envelope and message of an item."""
LEAST_OF_ITEM = 100
"""Characters of an item that does not fit."""
SHORT_MESSAGE_LENGTH = 80
KEPT_IN_SHORT = EVENT_FIELDS | {"outcome"}
DONE, REJECTED = "Done.", "Rejected."
NOT_READ = ReadResult(data={"truncated": True}, message="Not read.")
READ_ON = "Items marked truncated did not fit within max_characters: request them alone, or in a smaller batch."


def run_batch(
    state: State,
    commands: Sequence[Command],
    mode: Literal["atomic", "partial"],
    context: Context,
    *,
    entry: Entry,
    max_characters: int,
    events: list[Event],
    read: Read,
) -> ReadResult:
    """Run the commands on `state` in order and answer each, all within one budget. In atomic mode the first rejected
    command raises its error, with its place in the batch, and the caller discards `state`; in partial mode it is only
    reported. A read that runs out of time is only reported in both modes: it does not affect the batch's changes."""
    if mode == "atomic":
        upcoming = frozenset(c.task_id for c in commands if isinstance(c, DelegateTask) and c.task_id)
        context = msgspec.structs.replace(context, upcoming_tasks=upcoming)
    budget = Budget(max_characters, items=len(commands))
    results: list[dict[str, Any]] = []
    failed = same = 0
    for number, command in enumerate(commands):
        name = name_of(command)
        try:
            allowed = budget.narrow(command)
            answer = NOT_READ if allowed is None else _run(state, allowed, context, entry, events=events, read=read)
            result = {"command": name, "status": "success", "message": shorten(answer.message), "data": answer.data}
        except Rejected as error:
            if error.field:
                error.field = f"data.commands[{number}].{error.field}"
            result = {"command": name, "status": "error", "message": shorten(error.message), "error": error.body()}
            if error.data:
                result["data"] = error.data
            if mode == "atomic" and error.code not in OUT_OF_TIME_CODES:
                error.message = shorten(
                    f"Nothing was applied: command {number + 1} ({name}) was rejected. {error.message}"
                )
                error.data = {
                    "processed": 0,
                    "failed_item": number,
                    "item": Budget(max_characters, items=1).fit(result),
                }
                raise
            if state.session(context.session_id) and error.code not in OUT_OF_TIME_CODES:
                events.append(make_event(entry, name, "rejected", error.message, {"code": error.code}))
            failed += 1
        same += _is_repeat(result)
        results.append(budget.fit(result))
    done = len(results) - failed
    message = f"Executed all {done} commands"
    if failed:
        message = f"Executed {done} of {len(results)} commands; {failed} rejected"
    if same:
        message += f"; {same} of them changed nothing because {'it was' if same == 1 else 'they were'} already stored"
    message += "."
    data: dict[str, Any] = {"results": results, "processed": done, "failed": failed}
    if any("truncated" in result.get("data", {}) for result in results):
        data |= {"truncated": True, "read_on": READ_ON}
    return ReadResult(data=data, message=message)


def _is_repeat(result: dict[str, Any]) -> bool:
    return result["status"] == "success" and result["data"].get("created") is False and "outcome" not in result["data"]


class Budget:
    """The characters of a batch's response, which its items share."""

    def __init__(self, characters: int, *, items: int) -> None:
        self._left = characters
        self._items = items
        """Items that are still to come."""

    def narrow(self, command: Command) -> Command | None:
        """The command, a read limited to the available room; None if that is too little."""
        if not isinstance(command, ReadCommand):
            return command
        room = min(command.max_characters, self._room())
        return msgspec.structs.replace(command, max_characters=room) if room >= LEAST_OF_READ else None

    def fit(self, result: dict[str, Any]) -> dict[str, Any]:
        """The next result; if it does not fit, only the ids that it concerns and the code of its error."""
        fitted = result if measure(result) <= self._room() + LEAST_OF_READ else _abridge(result)
        self._left -= measure(fitted) + 1
        self._items -= 1
        return fitted

    def _room(self) -> int:
        """Room for the next item: some is reserved for those after it, but at most half."""
        return self._left - min((self._items - 1) * LEAST_OF_ITEM, max(self._left, 0) // 2)


def _abridge(result: dict[str, Any]) -> dict[str, Any]:
    ids = {name: value for name, value in result.get("data", {}).items() if name in KEPT_IN_SHORT}
    data = {name: value for name, value in ids.items() if not isinstance(value, list | dict)} | {"truncated": True}
    if "error" not in result:
        return result | {"message": DONE, "data": data}
    error = {name: value for name, value in result["error"].items() if name in ("code", "field", "retryable")}
    error["message"] = shorten(result["error"]["message"], SHORT_MESSAGE_LENGTH)
    return result | {"message": REJECTED, "error": error, "data": data}


def _run(
    state: State, command: Command, context: Context, entry: Entry, *, events: list[Event], read: Read
) -> ReadResult:
    if isinstance(command, ReadCommand):
        return read(command)
    decision = decide(state, command, context)
    decision.apply(state, context.session_id)
    if state.session(context.session_id):
        events.append(make_event(entry, name_of(command), "applied", decision.message, decision.data))
    return ReadResult(data=decision.data, message=decision.message)
