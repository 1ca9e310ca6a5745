"""Declares commands: each with an output schema, from which `--json` follows, and the options common to all."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import click
from click.core import ParameterSource

from cli.backends.selection import BACKENDS
from cli.completion import complete_profiles, complete_sessions
from cli.context import CliContext
from cli.output.table_columns import OutputSchema

Body = Callable[..., Any]


class DataCommand(click.Command):
    """A command with `--json [FIELDS]`. The fields are optional: a word that names no field is an ordinary argument."""

    def __init__(self, *args: Any, shape: OutputSchema, **more: Any) -> None:
        super().__init__(*args, **more)
        self.shape = shape

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join `--json` with the following word if that word lists fields."""
        joined: list[str] = []
        rest = iter(range(len(args)))
        for index in rest:
            word = args[index]
            if word == "--":
                joined += args[index:]
                break
            following = args[index + 1] if index + 1 < len(args) else ""
            if word == "--json" and self._are_fields(following):
                joined.append(f"--json={following}")
                next(rest)
            else:
                joined.append("--json=" if word == "--json" else word)
        return super().parse_args(ctx, joined)

    def _are_fields(self, word: str) -> bool:
        if not word or word.startswith("-"):
            return False
        takes_words = any(isinstance(parameter, click.Argument) for parameter in self.params)
        return not takes_words or any(name in self.shape.fields for name in word.split(","))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Add examples and the list of fields to the help."""
        super().format_epilog(ctx, formatter)
        write_examples(ctx, formatter)
        with formatter.section("JSON fields"):
            formatter.write_text(", ".join(self.shape.fields))


class PlainCommand(click.Command):
    """A command without data, with examples in its help."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Add examples to the help."""
        super().format_epilog(ctx, formatter)
        write_examples(ctx, formatter)


class CommandGroup(PlainCommand, click.Group):
    """A group of commands, with examples in its help."""


def command(name: str, shape: OutputSchema, **more: Any) -> Callable[[Body], click.Command]:
    """Declare a command. Its function receives the context and its parameters; its docstring is the help text."""

    def declare(body: Body) -> click.Command:
        def run(**values: Any) -> Any:
            return body(click.get_current_context().obj, **values)

        parameters = list(reversed(getattr(body, "__click_params__", [])))
        return DataCommand(
            name,
            shape=shape,
            callback=run,
            params=[*parameters, _json_option(), *general_options()],
            help=inspect.getdoc(body),
            **more,
        )

    return declare


def general_options(*, hidden: bool = True) -> list[click.Option]:
    """The global options, which are also accepted after a command."""
    return [
        click.Option(
            ["--backend"],
            type=click.Choice(BACKENDS),
            help="Where sessions are stored: http (a relay, the default), postgres, or json (files).",
            expose_value=False,
            hidden=hidden,
            callback=_setter("backend_name"),
        ),
        click.Option(
            ["--data-dir"],
            type=click.Path(file_okay=False),
            help="Data directory of the json backend.",
            expose_value=False,
            hidden=hidden,
            callback=_setter("data_dir"),
        ),
        click.Option(
            ["--profile"],
            metavar="NAME",
            help="Stored login to use, instead of RELAY_URL and API_KEY.",
            expose_value=False,
            hidden=hidden,
            callback=_setter("profile"),
            shell_complete=complete_profiles,
        ),
        click.Option(
            ["--no-pager"],
            is_flag=True,
            help="Do not pipe long output through a pager.",
            expose_value=False,
            hidden=hidden,
            callback=_disable_pager,
        ),
    ]


class AskedArgument(click.Argument):
    """A required argument that is asked for on a terminal, if it is missing."""

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, ParameterSource]:
        """Return the value given or typed."""
        value, source = super().consume_value(ctx, opts)
        asks = self.required and self.value_is_missing(value) and not ctx.resilient_parsing
        if asks and isinstance(ctx.obj, CliContext) and ctx.obj.terminal.can_ask:
            label = (self.name or "").removesuffix("_id").replace("_", " ").capitalize()
            if typed := ctx.obj.terminal.ask(label):
                return typed, ParameterSource.PROMPT
        return value, source


def argument(name: str, **more: Any) -> Callable[[Body], Body]:
    """A positional argument that is asked for on a terminal, if it is missing."""
    return click.argument(name, cls=AskedArgument, **more)


def write_examples(ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Add the examples of a command to its help, with the name that the program was called by."""
    from cli.command_examples import EXAMPLES

    name, _, path = ctx.command_path.partition(" ")
    if lines := EXAMPLES.get(path):
        with formatter.section("Examples"):
            for line in lines:
                formatter.write(f"{' ' * formatter.current_indent}{line.replace('session-cli', name)}\n")


class Id(click.ParamType[str]):
    """An id. Rejects other text, which would change the path of the URL it is put into."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id. Raises a usage error for an invalid one."""
        import re

        from models.field_types import DELIVERY_ID_PATTERN, ID_PATTERN, PATTERNS

        text = str(value)
        if not (re.search(ID_PATTERN, text) or re.search(DELIVERY_ID_PATTERN, text)):
            self.fail(f"Invalid id {text!r}: expected {PATTERNS[ID_PATTERN]}.", param, ctx)
        return text


def id_argument(name: str, metavar: str = "ID", *, required: bool = True, **more: Any) -> Callable[[Body], Body]:
    """A positional argument that is an id."""
    return argument(name, metavar=metavar, type=Id(), required=required, **more)


def session_argument(metavar: str = "ID", *, required: bool = True) -> Callable[[Body], Body]:
    """The positional argument for a session's id."""
    return id_argument("session_id", metavar, required=required, shell_complete=complete_sessions)


def session_option(help: str = "Filter by session.", **more: Any) -> Callable[[Body], Body]:
    """`--session`."""
    return click.option("--session", "session_id", metavar="ID", shell_complete=complete_sessions, help=help, **more)


def limit_option(default: int = 50) -> Callable[[Body], Body]:
    """`--limit`, where 0 means no limit."""
    return click.option(
        "--limit",
        "-n",
        type=click.IntRange(min=0),
        metavar="N",
        default=default,
        show_default=True,
        help="Maximum number of items; 0 for all.",
    )


def yes_option() -> Callable[[Body], Body]:
    """`--yes`, which skips the confirmation prompt."""
    return click.option("--yes", "-y", is_flag=True, help="Skip the confirmation prompt.")


def _json_option() -> click.Option:
    return click.Option(
        ["--json"],
        metavar="[FIELDS]",
        help="Output JSON; optionally only these comma-separated fields.",
        expose_value=False,
        callback=_choose_fields,
        is_eager=True,
    )


def _choose_fields(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is None or ctx.resilient_parsing:
        return
    tool: CliContext = ctx.obj
    tool.terminal.fields = ()
    fields = tuple(name.strip() for name in value.split(",") if name.strip())
    known = ctx.command.shape.fields if isinstance(ctx.command, DataCommand) else []
    for name in fields:
        if name not in known:
            raise click.UsageError(f"Unknown JSON field {name!r}. Available fields: {', '.join(known)}.")
    tool.terminal.fields = fields


def _setter(attribute: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def store(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None and ctx.obj is not None:
            setattr(ctx.obj, attribute, value)

    return store


def _disable_pager(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and ctx.obj is not None:
        ctx.obj.terminal.uses_pager = False
