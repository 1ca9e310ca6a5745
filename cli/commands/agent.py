"""Agents on this machine: running a command for each task that is delegated to one, and making one known."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.command_declaration import Id, command, id_argument
from cli.context import CliContext
from cli.output.output_schemas import AGENT, Column, OutputSchema

if TYPE_CHECKING:
    from agent.runner import Runner

INTERRUPTED = 130
EVENT = OutputSchema(
    (
        Column("at", "Time", "time"),
        Column("event", "Event", "name"),
        Column("status", "Status", "state"),
        Column("message", "Message", "text"),
        Column("session_id", "Session", "plain"),
        Column("task_id", "Task", "id"),
        Column("attempt"),
    ),
    id_path="task_id",
)


@click.group("agent")
def agent() -> None:
    """Work on delegated tasks with a command."""


@command("run", EVENT, context_settings={"allow_interspersed_args": False}, options_metavar="[OPTIONS] --")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND ...")
@click.option("--agent", "name", type=Id(), required=True, metavar="NAME", help="As which agent to claim tasks.")
@click.option("--concurrency", type=click.IntRange(1, 64), default=1, show_default=True, help="Tasks at a time.")
@click.option("--from", "created_by", metavar="KEY_NAME", help="Only tasks that this key has delegated.")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only these, of tasks that name no agent.")
@click.option(
    "--timeout", type=click.FloatRange(0.1), default=3600, show_default=True, metavar="SECONDS", help="For one task."
)
@click.option(
    "--lease",
    type=click.IntRange(2, 3600),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="After this a task goes to another one, if this machine is not heard of.",
)
@click.option("--worker", metavar="NAME", help="What to call this machine.  [default: its host name]")
@click.option("--pass-env", multiple=True, metavar="NAME", help="Hand on this variable, though it may hold a secret.")
def run(
    tool: CliContext,
    words: tuple[str, ...],
    name: str,
    concurrency: int,
    created_by: str | None,
    types: tuple[str, ...],
    timeout: float,
    lease: int,
    worker: str | None,
    pass_env: tuple[str, ...],
) -> int:
    """Run COMMAND for each task that is delegated to the agent, until Ctrl-C.

    It gets the task as JSON on standard input, in variables such as SESSION_RELAY_DESCRIPTION, and in place of words
    such as {description}. What it writes to standard output becomes the result, files in $SESSION_RELAY_ARTIFACT_DIR
    become artifacts. Exit code 0 completes the task, 75 puts it back for another attempt, any other fails it. The first
    Ctrl-C finishes what runs, a second one kills it and gives it back. All of it is explained in docs/AGENTS.md.
    """
    import socket

    from agent.execution.placeholders import Template
    from agent.execution.task_execution import Job
    from agent.http.claims_client import allow
    from agent.runner import ClaimOptions, Runner
    from cli.configuration import find_login

    _require_program(words[0])
    template = Template(words)
    if advice := allow(tool.client, name, concurrency=concurrency):
        tool.terminal.warn(advice)
    job = Job(
        template=template,
        timeout_seconds=timeout,
        lease_seconds=lease,
        environment=_own_environment(tool),
        key=find_login(tool.environment).key,
        passed=pass_env,
    )
    claim_options = ClaimOptions(
        agent_name=name,
        worker=worker or socket.gethostname(),
        task_types=types,
        created_by=created_by,
        concurrency=concurrency,
    )
    runner = Runner(tool.client, claim_options, job, warn=tool.terminal.warn)
    tool.terminal.note(f"Waiting for tasks of {name}; Ctrl-C ends this.")
    with _stopped_by_signals(runner):
        is_first = True
        for said in runner.run():
            if isinstance(said, str):
                tool.terminal.note(said)
                continue
            tool.terminal.event(said._asdict(), EVENT, with_heading=is_first)
            is_first = False
    return INTERRUPTED if runner.was_aborted else 0


@command("register", AGENT)
@id_argument("name", "NAME")
@click.option("--type", "kind", default="general", show_default=True, help="Tasks it takes that name no agent.")
@click.option("--max-concurrent", type=click.IntRange(1, 1000), default=1, show_default=True, help="Tasks at a time.")
@click.option("--capability", "capabilities", multiple=True, metavar="NAME", help="What it can do, for people to read.")
def register(tool: CliContext, name: str, kind: str, max_concurrent: int, capabilities: tuple[str, ...]) -> None:
    """Make an agent known, or change what is known of it. Needs a key with the scope admin."""
    from agent.http.claims_client import register as register_agent

    known: dict[str, Any] = register_agent(
        tool.client, name, type=kind, max_concurrent=max_concurrent, capabilities=capabilities
    )
    tool.terminal.done(f"{'Registered' if known['created'] else 'Changed'} {name}.")
    if tool.terminal.as_json or not tool.terminal.is_terminal:
        tool.terminal.item(known, AGENT)


def _require_program(program: str) -> None:
    import shutil

    if os.name != "posix":
        raise click.UsageError("Agents can be run on Linux and macOS only.")
    if "{" not in program and shutil.which(program) is None:
        raise click.UsageError(f"{program} is no program that can be run.")


def _own_environment(tool: CliContext) -> dict[str, str]:
    """The environment as it was before the launcher put this project into Python's path."""
    from cli.configuration import PROJECT

    paths = tool.environment.get("PYTHONPATH", "").split(os.pathsep)
    others = os.pathsep.join(path for path in paths if path and Path(path) != PROJECT)
    kept = {name: value for name, value in tool.environment.items() if name != "PYTHONPATH"}
    return kept | ({"PYTHONPATH": others} if others else {})


@contextmanager
def _stopped_by_signals(runner: Runner) -> Iterator[None]:
    def stop(*_: object) -> None:
        runner.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


for member in (run, register):
    agent.add_command(member)
