"""Exports and imports sessions as documents."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO, Literal

import click

from cli.command_declaration import command, session_argument
from cli.context import CliContext
from cli.output.humanize import count
from cli.output.table_columns import IMPORTED

Format = Literal["json", "markdown"]


@command("export", IMPORTED)
@session_argument("[ID]", required=False)
@click.option(
    "--format", type=click.Choice(["json", "markdown"]), default="json", show_default=True, help="Output format."
)
@click.option("--all", "is_all", is_flag=True, help="Export all sessions, oldest first; JSON is one session per line.")
@click.option("--output", "-o", type=click.Path(dir_okay=False), metavar="FILE", help="Write to FILE, atomically.")
def export(tool: CliContext, session_id: str | None, format: Format, is_all: bool, output: str | None) -> None:
    """Export a session as JSON or Markdown. `import` reads the JSON."""
    from cli.files import save

    if is_all == (session_id is not None):
        raise click.UsageError("Pass either a session ID or --all.")
    if tool.terminal.as_json:
        raise click.UsageError("export does not support --json: use --format json.")
    is_printed = output is None or output == "-"
    if session_id is None:
        parts = _all(tool, format, is_printed=is_printed)
    else:
        parts = tool.backend.export(session_id, format=format)
    if output is None or is_printed:
        tool.terminal.document(parts)
        return
    save(output, parts)
    tool.terminal.end()
    tool.terminal.done(f"Exported to {output}.")


@command("import", IMPORTED)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), metavar="FILE|-")
def import_file(tool: CliContext, file: str) -> None:
    """Import sessions from a JSON export. It may hold one session or all. Identical sessions are skipped."""
    from cli.files import reading

    with reading(file) as stream:
        total = _count_documents(stream)
        with tool.terminal.progress("Importing", total) as advance:
            imported = _import(tool, stream, total, advance)
            if not tool.terminal.is_terminal:
                tool.terminal.items(imported, IMPORTED, nothing="")
                return
            # Collect the rows first: a progress bar and a table would garble each other.
            pages = list(imported)
        tool.terminal.items(pages, IMPORTED, nothing="The file is empty.")


def _all(tool: CliContext, format: Format, *, is_printed: bool) -> Iterator[bytes]:
    session_ids = list(tool.backend.session_ids())
    with tool.terminal.progress("Exporting", len(session_ids), amid_output=is_printed) as advance:
        for session_id in session_ids:
            parts = tool.backend.export(session_id, format=format)
            if format == "json":
                # JSON has raw line breaks only between values, so each session can be put on one line.
                yield from (part.replace(b"\n", b" ") for part in parts)
            else:
                yield from parts
            yield b"\n"
            advance()
    tool.terminal.note_after(f"Exported {count(len(session_ids), 'session')}.")


def _import(tool: CliContext, stream: IO[bytes], total: int, advance: object) -> Iterator[list[dict[str, object]]]:
    documents = (io.BytesIO(line) for line in stream if line.strip()) if total != 1 else iter([stream])
    for document in documents:
        imported = tool.backend.import_document(document)
        yield [{"session_id": imported.session_id, "created": imported.created}]
        if callable(advance):
            advance()


def _count_documents(stream: IO[bytes]) -> int:
    """Count one document per line, unless the first line is not a whole document."""
    import msgspec

    first = stream.readline()
    try:
        if first.strip():
            msgspec.json.decode(first, type=dict)
    except (msgspec.DecodeError, UnicodeDecodeError):
        total = 1
    else:
        total = sum(bool(line.strip()) for line in stream) + bool(first.strip())
    stream.seek(0)
    return total
