"""Runs an agent on this machine, and registers agents."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.command_declaration import CommandGroup, Id, command, id_argument
from cli.completion import complete_agents
from cli.context import CliContext
from cli.output.table_columns import AGENT, Column, OutputSchema

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


@click.group("agent", cls=CommandGroup)
def agent() -> None:
    """Run and register agents."""


@command("run", EVENT, context_settings={"allow_interspersed_args": False}, options_metavar="[OPTIONS] --")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND ...")
@click.option(
    "--agent",
    "name",
    type=Id(),
    required=True,
    metavar="NAME",
    shell_complete=complete_agents,
    help="Agent whose tasks to claim.",
)
@click.option("--concurrency", type=click.IntRange(1, 64), default=1, show_default=True, help="Tasks to run at once.")
@click.option("--from", "created_by", metavar="KEY_NAME", help="Claim only tasks delegated with this key.")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Claim unassigned tasks of this type only.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=3600,
    show_default=True,
    metavar="SECONDS",
    help="Time limit for each task.",
)
@click.option(
    "--lease",
    type=click.IntRange(2, 3600),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Time without a heartbeat after which a task is reassigned.",
)
@click.option("--worker", metavar="NAME", help="Name of this worker.  [default: the host name]")
@click.option("--pass-env", multiple=True, metavar="NAME", help="Pass this variable on, even if it may hold a secret.")
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
    """Run COMMAND for each task delegated to an agent, until Ctrl-C.

    COMMAND receives the task as JSON on stdin, in variables such as SESSION_RELAY_DESCRIPTION, and in placeholders such
    as {description}. Its stdout becomes the result; files in $SESSION_RELAY_ARTIFACT_DIR become artifacts. Exit code 0
    completes the task, 75 requeues it for another attempt, any other code fails it. Ctrl-C waits for running tasks; a
    second Ctrl-C kills and releases them. See docs/AGENTS.md.
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
    with _stopped_by_signals(runner):
        tool.terminal.note(f"Waiting for tasks of {name}. Press Ctrl-C to stop.")
        is_first = True
        for event in runner.run():
            if isinstance(event, str):
                tool.terminal.note(event)
                continue
            tool.terminal.event(event._asdict(), EVENT, with_heading=is_first)
            is_first = False
    return INTERRUPTED if runner.was_aborted else 0


@command("register", AGENT)
@id_argument("name", "NAME", shell_complete=complete_agents)
@click.option(
    "--type", "kind", default="general", show_default=True, help="Type of tasks it claims if they name no agent."
)
@click.option("--max-concurrent", type=click.IntRange(1, 1000), default=1, show_default=True, help="Tasks at once.")
@click.option("--capability", "capabilities", multiple=True, metavar="NAME", help="A capability, shown to people.")
def register(tool: CliContext, name: str, kind: str, max_concurrent: int, capabilities: tuple[str, ...]) -> None:
    """Register or update an agent. Requires a key with the admin scope."""
    from agent.http.claims_client import register as register_agent

    registered: dict[str, Any] = register_agent(
        tool.client, name, type=kind, max_concurrent=max_concurrent, capabilities=capabilities
    )
    tool.terminal.done(f"{'Registered' if registered['created'] else 'Updated'} {name}.")
    if tool.terminal.as_json or not tool.terminal.is_terminal:
        tool.terminal.item(registered, AGENT)


def _require_program(program: str) -> None:
    import shutil

    if os.name != "posix":
        raise click.UsageError("Agents run on Linux and macOS only.")
    if "{" not in program and shutil.which(program) is None:
        raise click.UsageError(f"Command not found: {program}")


def _own_environment(tool: CliContext) -> dict[str, str]:
    """The environment without the PYTHONPATH entry that the launcher added."""
    from models.process.program import PROJECT

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
