"""docs/CLI.md shows all existing commands and no others: session-cli can parse each line."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from cli import main
from cli.main import MODULES, cli
from tests.support.inputs.command_lines import command_of
from tests.support.project import ROOT

PAGE = (ROOT / "docs" / "CLI.md").read_text()
README = (ROOT / "README.md").read_text()
LINES = sorted(
    {
        part.strip()
        for line in re.findall(r"^(?:\$ )?(session-cli .+)$", PAGE + README, re.MULTILINE)
        for part in line.split(" | ")
        if part.startswith("session-cli ")
    }
)


@pytest.mark.parametrize("line", LINES)
def test_every_line_can_be_parsed(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path, command, words = command_of(line)
    context = click.Context(command, info_name=path, obj=SimpleNamespace(terminal=SimpleNamespace(fields=None)))
    try:
        command.parse_args(context, words)
    except click.BadParameter as error:
        # Files of a reader.
        assert "does not exist" in error.message


def test_every_command_is_shown() -> None:
    shown = {command_of(line)[0] for line in re.findall(r"^\$ (session-cli .+?)(?: \||$)", PAGE, re.MULTILINE)}
    wanted: set[str] = set()
    for name in MODULES:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        members = [f"{name} {member}" for member in command.commands] if isinstance(command, click.Group) else [name]
        wanted.update(members)
    assert wanted - shown == {"up"}, "which runs until Ctrl-C"


def test_the_exit_codes_are_those_of_the_program() -> None:
    table = dict(re.findall(r"^\| (\d+) \| (\w+)", PAGE, re.MULTILINE))
    names = ("FAILED", "NOT_FOUND", "NOT_ALLOWED", "UNAVAILABLE", "INTERRUPTED")
    assert {table[str(getattr(main, name))] for name in names} == {"failure", "not", "unavailable", "interrupted"}
    told = dict(re.findall(r"(\d+) (\w+)", main.EPILOG.partition("Exit codes:")[2]))
    assert table == told


def test_the_page_contains_no_paths_of_the_machine_that_generated_it() -> None:
    for trace in (str(Path.home()), str(ROOT), "/tmp/"):
        assert trace not in PAGE
