"""Command lines of session-cli in documents."""

from __future__ import annotations

import shlex

import click

from cli import main
from cli.main import cli


def command_of(line: str) -> tuple[str, click.Command, list[str]]:
    """Return the path and the command of a line, and the remaining words."""
    _, *words = shlex.split(line)
    context = click.Context(cli, info_name=main.NAME)
    command: click.Command = cli
    path: list[str] = []
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, f"Unknown command {words[0]!r}."
        command = found
        path.append(words.pop(0))
    return " ".join(path), command, words
