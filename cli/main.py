"""Entry point of session-cli: registers the commands, and turns errors into messages and exit codes."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import Any

import click

from cli.command_declaration import general_options, write_examples
from cli.context import CliContext
from cli.output.terminal import Declined, OutputClosed, leave_quietly
from models.version import version

NAME = "session-cli"
FAILED, USAGE, NOT_FOUND, NOT_ALLOWED, UNAVAILABLE, INTERRUPTED = 1, 2, 3, 4, 5, 130

SECTIONS: dict[str, dict[str, str]] = {
    "Sessions": dict.fromkeys(
        ("create", "list", "show", "summary", "pause", "resume", "complete", "delete"), "sessions"
    ),
    "Writing": {
        **dict.fromkeys(("remember", "say"), "writing"),
        **dict.fromkeys(("delegate", "task"), "tasks"),
    },
    "Session contents": {
        **dict.fromkeys(("search", "search-conversations", "search-memories"), "search"),
        "activity": "contents",
        **dict.fromkeys(("transcript", "memories", "list-tasks", "list-artifacts", "artifact"), "contents"),
        "watch": "watch",
    },
    "Import and export": {"export": "documents", "import": "documents", "send": "send"},
    "Relay": {
        **dict.fromkeys(("login", "logout"), "login"),
        **dict.fromkeys(("profile", "whoami"), "profiles"),
        **dict.fromkeys(("open", "api"), "requests"),
        "status": "operator.status",
        "agent": "agent",
        **dict.fromkeys(("agents", "refusals"), "operator.agents_and_refusals"),
        "deliveries": "operator.deliveries",
        "dead-letters": "operator.dead_letters",
        "keys": "operator.keys",
    },
    "Integrations": dict.fromkeys(("listen", "trigger"), "forwarding"),
    "Operations": {"up": "operator.up", "db": "operator.databases", "doctor": "operator.doctor"},
    "Shell": {"completion": "completion"},
}
"""Maps each command to its module in cli/commands, which is imported on first use to keep startup fast."""
ALIASES = {"ls": "list"}
"""Other names of commands, which the help does not list."""
MODULES = {name: module for commands in SECTIONS.values() for name, module in commands.items()}


class Commands(click.Group):
    """The command group, which loads commands lazily."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of the help."""
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command, or return None for an unknown name."""
        cmd_name = ALIASES.get(cmd_name, cmd_name)
        if cmd_name not in MODULES:
            return None
        module = import_module(f"{__package__}.commands.{MODULES[cmd_name]}")
        return next(
            value for value in vars(module).values() if isinstance(value, click.Command) and value.name == cmd_name
        )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. The error for an unknown name suggests similar ones."""
        if args[0] not in MODULES | ALIASES and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise click.NoSuchCommand(args[0], possibilities=list(MODULES), ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Add examples and the notes on output."""
        write_examples(ctx, formatter)
        super().format_epilog(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by section."""
        width = max(map(len, MODULES))
        for title, names in SECTIONS.items():
            commands = ((name, self.get_command(ctx, name)) for name in names)
            room = formatter.width - width - 6
            rows = [(name.ljust(width), command.get_short_help_str(room)) for name, command in commands if command]
            with formatter.section(title):
                formatter.write_dl(rows)


EPILOG = """\b
Output is formatted for reading on a terminal, and is TSV with a header line elsewhere: never truncated, lists and
objects as JSON, tab, newline and backslash as \\t \\n \\r \\\\, other control characters as \\u001b. `--json` outputs
JSON; `--json id,title` only those fields. Data goes to stdout, messages to stderr. `--yes` skips prompts.

\b
The relay is taken from --profile or RELAY_PROFILE, else from RELAY_URL and API_KEY, else from `session-cli login`, else
from a running `make up`. Arguments that are missing are asked for on a terminal.
Other environment variables: STORAGE_BACKEND, DATA_DIR, DATABASE_URL, REDIS_URL, PLAIN_HTTP_HOSTS, FORWARD_SECRET,
PAGER, NO_COLOR.

\b
Exit codes: 0 success, 1 failure, 2 invalid usage or settings, 3 not found, 4 not authorized, 5 unavailable,
130 interrupted.
"""


@click.command(
    NAME,
    cls=Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 120},
)
def cli() -> None:
    """Read, search and change sessions, and operate the relay that stores them."""


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"{ctx.find_root().info_name} {version()}")
        ctx.exit()


cli.params += [
    *general_options(hidden=False),
    click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Show the version and exit.",
    ),
]


def main() -> int:
    """Run the command line. Returns its exit code."""
    tool = CliContext(os.environ)
    # Usage errors are raised before click has parsed --json.
    if any(word == "--json" or word.startswith("--json=") for word in sys.argv[1:]):
        tool.terminal.fields = ()
    try:
        code = cli.main(prog_name=_program_name(sys.argv[0]), standalone_mode=False, obj=tool)
        return code if isinstance(code, int) else 0
    except Exception as error:
        return _report(tool, error)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        tool.close()


def _program_name(command: str) -> str:
    """The name under which an installation was called. It has two, as people who run a relay think of it as such."""
    name = os.path.basename(command)
    return name if name == "session-relay" else NAME


def _report(tool: CliContext, error: Exception) -> int:
    """Print an error and return its exit code. Unexpected exceptions, which are bugs, are raised again."""
    from models.process.missing_packages import describe_missing

    if isinstance(error, ModuleNotFoundError) and (sentence := describe_missing(error)):
        tool.terminal.fail(sentence)
        return FAILED
    from models.commands.interface_names import to_cli
    from models.errors import Forbidden, NotFound, RelayError, SettingsError, TooManyRequests, Unauthorized, Unavailable

    terminal = tool.terminal
    match error:
        case OutputClosed():
            return leave_quietly()
        case Declined():
            terminal.note("Cancelled. Nothing was changed.")
            return FAILED
        case click.Abort():
            return INTERRUPTED
        case click.exceptions.NoArgsIsHelpError():
            terminal.note(error.format_message())
            return USAGE
        case click.UsageError():
            return _report_usage(tool, error)
        case click.ClickException():
            terminal.fail(error.format_message())
            return FAILED
        case RelayError():
            error.hint = to_cli(error.hint) if error.hint else None
            hints = [f"Expected: {error.expected}." if error.expected else "", error.hint or ""]
            hints += [f"{problem.get('field')}: {problem['message']}" for problem in error.problems[1:]]
            if isinstance(error, Unauthorized) and tool.key_origin:
                hints.append(f"The key came from {tool.key_origin}.")
            terminal.fail(error.message, hint="\n".join(filter(None, hints)), error=error.body())
            codes: tuple[tuple[tuple[type[RelayError], ...], int], ...] = (
                ((SettingsError,), USAGE),
                ((NotFound,), NOT_FOUND),
                ((Unauthorized, Forbidden), NOT_ALLOWED),
                ((Unavailable, TooManyRequests), UNAVAILABLE),
            )
            return next((code for kinds, code in codes if isinstance(error, kinds)), FAILED)
        case UnicodeEncodeError() if error.reason == "surrogates not allowed":
            terminal.fail("An argument is not UTF-8.")
            return USAGE
        case OSError() if error.errno != errno.EPIPE:
            terminal.fail(f"Cannot access {error.filename or 'a file'}: {error.strerror or error}.")
            return FAILED
    raise error


def _report_usage(tool: CliContext, error: click.UsageError) -> int:
    details: dict[str, Any] = {"code": "usage", "message": error.format_message()}
    hint = f"Run `{error.ctx.command_path} --help` for usage." if error.ctx else ""
    tool.terminal.fail(error.format_message(), hint=hint, error=details)
    return USAGE
