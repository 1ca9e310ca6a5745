"""Prints shell completion scripts."""

from __future__ import annotations

import click

from cli.command_declaration import command
from cli.context import CliContext
from cli.output.table_columns import Column, OutputSchema

_SCRIPT = OutputSchema((Column("shell"), Column("script")), id_path="shell")


@command("completion", _SCRIPT)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(tool: CliContext, shell: str) -> None:
    """Print a shell completion script.

    \b
    bash: eval "$(session-cli completion bash)" in ~/.bashrc
    zsh:  eval "$(session-cli completion zsh)" in ~/.zshrc
    fish: session-cli completion fish > ~/.config/fish/completions/session-cli.fish
    """
    from click.shell_completion import get_completion_class

    from cli.main import NAME, cli

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(cli, {}, NAME, "_SESSION_CLI_COMPLETE").source()
    if tool.terminal.as_json:
        tool.terminal.item({"shell": shell, "script": script}, _SCRIPT)
    else:
        tool.terminal.line(script)
