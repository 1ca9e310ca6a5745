"""Lines of documents that call session-cli."""

from __future__ import annotations

import shlex

import click

from cli import main
from cli.main import cli


def command_of(line: str) -> tuple[str, click.Command, list[str]]:
    """The command that a line means, with its path, and the words that are left for it."""
    _, *words = shlex.split(line)
    context = click.Context(cli, info_name=main.NAME)
    command: click.Command = cli
    path: list[str] = []
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, f"There is no command {words[0]!r}."
        command = found
        path.append(words.pop(0))
    return " ".join(path), command, words
