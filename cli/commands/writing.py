"""Writes to a session without JSON: memories and what was said."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import click

from cli.command_declaration import argument, command, session_argument
from cli.commands.search import MEMORY_TYPES
from cli.completion import complete_memory_keys
from cli.context import CliContext
from cli.output.table_columns import SAID, STORED

PART_CHARACTERS = 90_000
"""The longest text of one chunk. Longer ones are split between lines."""
ID_DIGITS = 16


@command("remember", STORED)
@session_argument()
@argument("text", metavar="TEXT|-")
@click.option("--type", "kind", type=click.Choice(MEMORY_TYPES), help="Type of the memory.  [default: general]")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Tag; may be repeated.")
@click.option("--rationale", metavar="TEXT", help="Reason, such as that of a decision.")
@click.option("--key", metavar="KEY", shell_complete=complete_memory_keys, help="Name, to change the memory later.")
@click.option("--status", type=click.Choice(["open", "done", "superseded"]), help="Status.")
@click.option("--due", metavar="TIME", help="Date or time at which it is due, or a delay such as 'in 7d'.")
def remember(
    tool: CliContext,
    session_id: str,
    text: str,
    kind: str | None,
    tags: tuple[str, ...],
    rationale: str | None,
    **more: Any,
) -> None:
    """Store a memory in a session. TEXT is read from stdin for -. The same key again makes a new revision."""
    from cli.files import read_text

    content: Any = read_text(text)
    if rationale:
        content = {("decision" if kind in (None, "decision") else "text"): content, "rationale": rationale}
    data = {"content": content, "type": kind, "tags": list(tags), **more}
    given = {name: value for name, value in data.items() if value}
    _write(tool, "store_memory", session_id, given, STORED)


@command("say", SAID)
@session_argument()
@argument("text", metavar="TEXT|-")
@click.option("--as", "speaker", metavar="NAME", help="Who said it.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["dialogue", "summary", "transcript"]),
    default="dialogue",
    show_default=True,
    help="The words themselves, a summary, or the transcript of a recording.",
)
def say(tool: CliContext, session_id: str, text: str, speaker: str | None, form: str) -> None:
    """Add to a session's conversation. TEXT is read from stdin for -; a long one is split between lines."""
    from cli.files import read_text

    said = read_text(text)
    parts = list(split(f"{speaker}: {said}" if speaker else said))
    data: dict[str, Any] = {"format": form, **({"participants": [speaker]} if speaker else {})}
    digest = hashlib.sha256(f"{form}\0{speaker}\0{said}".encode(errors="surrogatepass")).hexdigest()[:ID_DIGITS]
    for number, part in enumerate(parts, 1):
        # Named parts are stored once, even if an interrupted command is repeated. A short text may be said again.
        named = {"chunk_id": f"said-{digest}-{number:03}"} if len(parts) > 1 else {}
        _write(tool, "conversation_chunk", session_id, {**data, **named, "content": part}, SAID)


def split(text: str) -> Iterator[str]:
    """Split a text into parts of at most PART_CHARACTERS, after a line break where there is one."""
    while len(text) > PART_CHARACTERS:
        end = text.rfind("\n", 0, PART_CHARACTERS) + 1 or PART_CHARACTERS
        yield text[:end]
        text = text[end:]
    yield text


def _write(tool: CliContext, name: str, session_id: str, data: dict[str, Any], shape: Any) -> None:
    response = tool.backend.send(name, data, session_id=session_id)
    tool.terminal.done(response["message"])
    if tool.terminal.as_json or not tool.terminal.is_terminal:
        tool.terminal.item({"session_id": session_id, **response["data"]}, shape)
