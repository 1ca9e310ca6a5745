"""The entry of session-cli: which commands there are, and what becomes of errors: sentences and exit codes."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import Any

import click

from cli.command_declaration import general_options
from cli.context import CliContext
from cli.output.terminal import Declined, OutputClosed, leave_quietly
from models.version import version

NAME = "session-cli"
FAILED, USAGE, NOT_FOUND, NOT_ALLOWED, UNAVAILABLE, INTERRUPTED = 1, 2, 3, 4, 5, 130

SECTIONS: dict[str, dict[str, str]] = {
    "Sessions": dict.fromkeys(
        ("create", "list", "show", "summary", "pause", "resume", "complete", "delete"), "sessions"
    ),
    "What is in them": {
        **dict.fromkeys(("search-conversations", "search-memories"), "search"),
        **dict.fromkeys(("transcript", "memories", "list-tasks", "list-artifacts", "artifact"), "contents"),
        "watch": "watch",
    },
    "In and out": {"export": "documents", "import": "documents", "send": "send"},
    "The relay": {
        **dict.fromkeys(("login", "logout"), "login"),
        "status": "operator.status",
        "agent": "agent",
        **dict.fromkeys(("agents", "refusals"), "operator.agents_and_refusals"),
        "deliveries": "operator.deliveries",
        "dead-letters": "operator.dead_letters",
        "keys": "operator.keys",
    },
    "The servers": {"db": "operator.databases", "doctor": "operator.doctor"},
    "Your shell": {"completion": "completion"},
}
"""Each command with its module in cli/commands, which is imported when it is needed."""
MODULES = {name: module for commands in SECTIONS.values() for name, module in commands.items()}


class Commands(click.Group):
    """The commands, looked up in their modules."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, in the order of the help."""
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them, or None."""
        if cmd_name not in MODULES:
            return None
        module = import_module(f"cli.commands.{MODULES[cmd_name]}")
        return next(
            value for value in vars(module).values() if isinstance(value, click.Command) and value.name == cmd_name
        )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is meant, or an error that names the nearest."""
        if args[0] not in MODULES and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise click.NoSuchCommand(args[0], possibilities=list(MODULES), ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by what they are for."""
        width = max(map(len, MODULES))
        for title, names in SECTIONS.items():
            commands = ((name, self.get_command(ctx, name)) for name in names)
            room = formatter.width - width - 6
            rows = [(name.ljust(width), command.get_short_help_str(room)) for name, command in commands if command]
            with formatter.section(title):
                formatter.write_dl(rows)


EPILOG = """\b
On a terminal output is drawn for people. Elsewhere it is TSV with a heading line: complete, lists and objects as JSON,
tab, line break and backslash as \\t \\n \\r \\\\ and other control characters as \\u001b. With --json it is JSON,
with --json id,title only these fields. Data go to standard output, all else to standard error.

\b
The relay: RELAY_URL and API_KEY, else what `login` has stored, else a stack of `make up` on this machine.
Also read: STORAGE_BACKEND, DATA_DIR, DATABASE_URL, REDIS_URL, PLAIN_HTTP_HOSTS, PAGER, NO_COLOR.

\b
Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 not found, 4 not allowed, 5 unavailable, 130 interrupted.
"""


@click.command(
    NAME,
    cls=Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 120},
)
def cli() -> None:
    """Work with the sessions of a session-relay: look into them, search them, change them, and look after the relay."""


def _tell_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"{NAME} {version()}")
        ctx.exit()


cli.params += [
    *general_options(hidden=False),
    click.Option(
        ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_tell_version, help="Tell the version."
    ),
]


def main() -> int:
    """Run a command line; gives its exit code."""
    tool = CliContext(os.environ)
    # Usage errors come before --json is read.
    if any(word == "--json" or word.startswith("--json=") for word in sys.argv[1:]):
        tool.terminal.fields = ()
    try:
        code = cli.main(prog_name=NAME, standalone_mode=False, obj=tool)
        return code if isinstance(code, int) else 0
    except Exception as error:
        return _report(tool, error)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        tool.close()


def _report(tool: CliContext, error: Exception) -> int:
    """Say what is wrong, and give the exit code for it. What is a bug is raised again."""
    from models.commands.interface_names import to_cli
    from models.errors import Forbidden, NotFound, RelayError, SettingsError, TooManyRequests, Unauthorized, Unavailable

    terminal = tool.terminal
    match error:
        case OutputClosed():
            return leave_quietly()
        case Declined():
            terminal.note("Nothing was done.")
            return FAILED
        case click.Abort():
            return INTERRUPTED
        case click.UsageError():
            return _report_usage(tool, error)
        case click.ClickException():
            terminal.fail(error.format_message())
            return FAILED
        case RelayError():
            error.hint = to_cli(error.hint) if error.hint else None
            told = [f"Expected: {error.expected}." if error.expected else "", error.hint or ""]
            told += [f"{problem.get('field')}: {problem['message']}" for problem in error.problems[1:]]
            if isinstance(error, Unauthorized) and tool.key_origin:
                told.append(f"The key is that of {tool.key_origin}.")
            terminal.fail(error.message, hint="\n".join(filter(None, told)), error=error.body())
            codes: tuple[tuple[tuple[type[RelayError], ...], int], ...] = (
                ((SettingsError,), USAGE),
                ((NotFound,), NOT_FOUND),
                ((Unauthorized, Forbidden), NOT_ALLOWED),
                ((Unavailable, TooManyRequests), UNAVAILABLE),
            )
            return next((code for kinds, code in codes if isinstance(error, kinds)), FAILED)
        case OSError() if error.errno != errno.EPIPE:
            terminal.fail(f"{error.filename or 'A file'} cannot be used: {error.strerror or error}.")
            return FAILED
    raise error


def _report_usage(tool: CliContext, error: click.UsageError) -> int:
    details: dict[str, Any] = {"code": "usage", "message": error.format_message()}
    hint = f"Try: {error.ctx.command_path} --help" if error.ctx else ""
    tool.terminal.fail(error.format_message(), hint=hint, error=details)
    return USAGE
