"""The units that run an agent on a machine: the command of each claims tasks of its agent."""

from __future__ import annotations

import plistlib
import shlex
import shutil
from pathlib import Path

import pytest

from tests.support.deployment import PLISTS, USER_UNITS, sections
from tests.support.processes.command_line import PROGRAM, CommandLine
from tests.support.processes.runners import running_agent
from tests.support.processes.stack import Stack, new_id
from tests.support.project import API_KEY, ROOT


def command_of_systemd(agent: str) -> list[str]:
    """Return the command of the unit for this agent, as systemd expands it: a variable alone becomes several words."""
    [unit] = USER_UNITS
    [line] = [value for name, value in sections(unit)["Service"] if name == "ExecStart"]
    values = {"$AGENT_OPTIONS": "--lease 30", "$AGENT_COMMAND": f"{ROOT}/examples/agents/compare_prices.py"}
    words: list[str] = []
    for word in line.split():
        words += values[word].split() if word in values else [word.replace("%h", "/home/anna").replace("%i", agent)]
    return words


def command_of_launchd(agent: str) -> list[str]:
    """Return the command of the plist, for this agent."""
    [plist] = PLISTS
    words: list[str] = plistlib.loads(plist.read_bytes())["ProgramArguments"]
    return [agent if word == "researcher" else word.replace("/Users/YOU/session-relay", str(ROOT)) for word in words]


@pytest.mark.parametrize("make", [command_of_systemd, command_of_launchd], ids=["systemd", "launchd"])
def test_the_unit_runs_the_agent_s_tasks(make: object, stack: Stack, tmp_path: Path) -> None:
    assert callable(make)
    agent, session_id = new_id("agent"), new_id()
    program, *arguments = make(agent)
    assert program.endswith("/session-relay/bin/session-cli") or program == PROGRAM
    assert arguments[:2] == ["agent", "run"]
    options, command = arguments[2 : arguments.index("--")], arguments[arguments.index("--") + 1 :]
    assert shutil.which(command[0]), shlex.join(command)
    stack.send("create_session", session_id, title="Prices")
    cli = CommandLine(tmp_path, RELAY_URL=stack.url, API_KEY=API_KEY)
    with running_agent(cli, *options, command=command) as running:
        stack.send(
            "delegate_task",
            session_id,
            task_id="t",
            agent_name=agent,
            description="Compare prices",
            input_data={"prices": {"ACME": 49.5, "Bike & Co": 42}},
        )
        running.wait_for_event("finished")
    task = stack.client.get(f"/v1/sessions/{session_id}/tasks/t").json()
    assert task["status"] == "completed", task
