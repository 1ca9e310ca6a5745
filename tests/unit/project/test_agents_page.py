"""docs/AGENTS.md agrees with the runner: its options, placeholders and limits, and each command can be parsed."""

from __future__ import annotations

import re
import shlex
from types import SimpleNamespace

import click
import pytest

from agent.execution.placeholders import NAMES, Template
from agent.execution.task_directory import PREFIX, WITHHELD
from agent.execution.task_execution import LONGEST_BEAT_SECONDS, TRY_AGAIN
from agent.execution.task_results import BODY_BYTES, FILE_BYTES, MAX_FILES
from cli.commands.agent import run
from tests.support.inputs.command_lines import command_of
from tests.support.project import ROOT

PAGE = (ROOT / "docs" / "AGENTS.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
LINES = [
    command
    for block in BLOCKS
    for line in block.replace("\\\n", " ").replace(" |\n  session-cli", " |\nsession-cli").splitlines()
    if (command := re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line)).startswith("session-cli")
]
"""Without the variables before them."""


def test_its_options_are_those_of_the_command() -> None:
    told = set(re.findall(r"^\| `(--[a-z-]+)", PAGE, re.MULTILINE))
    general = {"--backend", "--data-dir", "--no-pager", "--profile"}
    assert told == {name for option in run.params for name in option.opts if name.startswith("--")} - general


def test_its_placeholders_and_variables_are_those_of_the_runner() -> None:
    told = re.findall(r"^\| `\{(\w+)\}` \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert told == [(name, f"{PREFIX}{name.upper()}") for name in NAMES]
    assert all(f"`{name}`" in PAGE for name in WITHHELD)


def test_its_numbers_are_those_of_the_runner() -> None:
    assert f"{FILE_BYTES:,} bytes per file, {MAX_FILES} files per task, and {BODY_BYTES:,} bytes in total" in PAGE
    assert f"exit code {TRY_AGAIN} " in PAGE
    assert f"after {LONGEST_BEAT_SECONDS:g} seconds or a third of the lease" in PAGE


@pytest.mark.parametrize("line", LINES)
def test_every_command_can_be_parsed(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path, command, words = command_of(line)
    context = click.Context(command, info_name=path, obj=SimpleNamespace(terminal=SimpleNamespace(fields=None)))
    command.parse_args(context, words)
    if path == "agent run":
        Template(context.params["words"])
        assert shlex.split(line).index("--") > 0


def test_every_linked_file_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
