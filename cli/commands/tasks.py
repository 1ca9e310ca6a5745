"""Delegates tasks, and shows, answers and cancels them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from cli.backends.pages import listed
from cli.command_declaration import Body, CommandGroup, Id, argument, command, session_argument
from cli.commands.contents import list_tasks
from cli.completion import complete_agents, complete_tasks
from cli.context import CliContext
from cli.output.table_columns import TASK, TASK_IN_FULL

WAIT_SECONDS = 25.0
"""The time that one read of a task waits for its end."""
PAUSE_SECONDS = 1.0
"""The least time between two reads. Stores do not wait."""
UNSETTLED = ("pending", "claimed", "running")
Task = dict[str, Any]


@command("delegate", TASK_IN_FULL)
@session_argument()
@argument("description", metavar="DESCRIPTION|-")
@click.option("--agent", "agent_name", type=Id(), metavar="NAME", shell_complete=complete_agents, help="Agent.")
@click.option("--type", "task_type", metavar="TYPE", help="Kind of work, for agents of that type.  [default: general]")
@click.option("--title", metavar="TEXT", help="Title.  [default: the first line]")
@click.option("--id", "task_id", type=Id(), metavar="ID", help="Id of the task.  [default: from the description]")
@click.option("--priority", type=click.IntRange(-1000, 1000), metavar="N", help="Higher ones are claimed first.")
@click.option("--input", "input_data", metavar="JSON", help="An object for the agent; @FILE or - to read it.")
@click.option("--wait", "is_waiting", is_flag=True, help="Wait until it is done, and show its output.")
def delegate(tool: CliContext, session_id: str, description: str, is_waiting: bool, **more: Any) -> int:
    """Delegate a task to an agent. With --wait, its questions are put to you on a terminal. Exits with 1 if the task
    fails or is cancelled, or waits for an answer."""
    from cli.files import read_json, read_text

    if more["input_data"] is not None:
        more["input_data"] = read_json(more["input_data"], option="--input")
    given = {name: value for name, value in more.items() if value not in (None, "")}
    data = {"description": read_text(description), **given}
    response = tool.backend.send("delegate_task", data, session_id=session_id)
    tool.terminal.done(response["message"])
    task_id = response["data"]["task_id"]
    if is_waiting:
        return _finish(tool, session_id, task_id)
    tool.terminal.note(f"Follow it: session-cli task show {session_id} {task_id} --wait")
    if tool.terminal.as_json or not tool.terminal.is_terminal:
        tool.terminal.item({"session_id": session_id, **response["data"]}, TASK_IN_FULL)
    return 0


@click.group("task", cls=CommandGroup)
def task() -> None:
    """Show, answer, cancel and list tasks."""


def _task_argument() -> Callable[[Body], Body]:
    return argument("task_id", metavar="TASK_ID", type=Id(), shell_complete=complete_tasks)


@command("show", TASK_IN_FULL)
@session_argument()
@_task_argument()
@click.option("--wait", "is_waiting", is_flag=True, help="Wait until it is done.")
def show(tool: CliContext, session_id: str, task_id: str, is_waiting: bool) -> int:
    """Show a task with its output, or its question. With --wait, exits as `delegate --wait`."""
    if is_waiting:
        return _finish(tool, session_id, task_id)
    tool.terminal.item(_with_artifacts(tool, _read(tool, session_id, task_id)), TASK_IN_FULL)
    return 0


@command("answer", TASK)
@session_argument()
@_task_argument()
@argument("text", metavar="TEXT|-")
def answer(tool: CliContext, session_id: str, task_id: str, text: str) -> None:
    """Answer an agent's question. The task goes on with the answer."""
    from cli.files import read_text

    _change(tool, "answer_task", session_id, task_id, answer=read_text(text))


@command("cancel", TASK)
@session_argument()
@_task_argument()
@click.option("--reason", metavar="TEXT", help="Reason, kept with the task.")
def cancel(tool: CliContext, session_id: str, task_id: str, reason: str | None) -> None:
    """Cancel a task. An agent that works on it is told."""
    _change(tool, "cancel_task", session_id, task_id, **({"reason": reason} if reason else {}))


def _change(tool: CliContext, name: str, session_id: str, task_id: str, **data: str) -> None:
    response = tool.backend.send(name, {"task_id": task_id, **data}, session_id=session_id)
    tool.terminal.done(response["message"])
    if tool.terminal.as_json or not tool.terminal.is_terminal:
        tool.terminal.item({"session_id": session_id, **response["data"]}, TASK)


def _finish(tool: CliContext, session_id: str, task_id: str) -> int:
    """Wait for a task, show it, and return the exit code."""
    found = _await(tool, session_id, task_id)
    while found["status"] == "input_required" and tool.terminal.can_ask and not tool.terminal.as_json:
        tool.terminal.note(f"{found.get('agent_name') or 'The agent'} asks: {found.get('question') or ''}")
        if not (said := tool.terminal.ask("Answer")):
            break
        tool.backend.send("answer_task", {"task_id": task_id, "answer": said}, session_id=session_id)
        found = _await(tool, session_id, task_id)
    tool.terminal.item(_with_artifacts(tool, found), TASK_IN_FULL)
    if found["status"] == "input_required":
        tool.terminal.note(f"It asks a question. Answer it: session-cli task answer {session_id} {task_id} TEXT")
    return 0 if found["status"] == "completed" else 1


def _await(tool: CliContext, session_id: str, task_id: str) -> Task:
    told = ""
    found = _read(tool, session_id, task_id)
    while True:
        began = time.monotonic()
        if found["status"] not in UNSETTLED:
            return found
        state = ": ".join(filter(None, [found["status"], _progress(found)]))
        if state != told:
            tool.terminal.note(f"The task is {state}. Press Ctrl-C to stop waiting; it goes on.")
            told = state
        found = _read(tool, session_id, task_id, wait=WAIT_SECONDS)
        time.sleep(max(0.0, PAUSE_SECONDS - (time.monotonic() - began)) if found["status"] in UNSETTLED else 0)


def _with_artifacts(tool: CliContext, found: Task) -> Task:
    """Return the task with the ids of its artifacts, if it has any."""
    pages = listed(tool, "list_artifacts", {"task_id": found["task_id"]}, session_id=found["session_id"], limit=0)
    ids = [item["artifact_id"] for page in pages for item in page]
    return {**found, "artifacts": ids} if ids else found


def _progress(found: Task) -> str:
    progress = found.get("progress")
    return str(progress.get("text") or "") if isinstance(progress, dict) else str(progress or "")


def _read(tool: CliContext, session_id: str, task_id: str, *, wait: float = 0) -> Task:
    from cli.backends.reassembly import whole_task

    return whole_task(tool.backend, session_id, task_id, wait=wait)


task.add_command(list_tasks, "list")
for member in (show, answer, cancel):
    task.add_command(member)
