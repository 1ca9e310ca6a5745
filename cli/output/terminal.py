"""Writes all output: data to stdout, in the format that suits it, and messages to stderr."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import click

from cli.output.escaping import visible, visible_lines

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from cli.output.machine_output import Pages
    from cli.output.table_columns import OutputSchema

SIGPIPE_CODE = 141
"""The exit code by which shells report SIGPIPE."""

Advance = Callable[[], None]


class OutputClosed(Exception):
    """The reader of stdout has closed the pipe."""


class Declined(Exception):
    """The user declined a confirmation prompt."""


class Terminal:
    """The stdout and stderr of one command."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.is_terminal = sys.stdout.isatty()
        self.uses_pager = True
        self._after: list[str] = []
        self.fields: tuple[str, ...] | None = None
        """The fields of `--json`: None without it, empty for all fields."""
        if not self.is_terminal:
            sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]

    @property
    def as_json(self) -> bool:
        """True if data and errors are written as JSON."""
        return self.fields is not None

    def items(self, pages: Pages, shape: OutputSchema, *, nothing: str) -> None:
        """Write a list, page by page as they arrive. The first page is fetched before any output, so that its errors
        come alone. On a terminal, an empty list is reported as `nothing`."""
        self._items(_prefetch_first(pages), shape, nothing=nothing)
        self.end()

    def _items(self, pages: Pages, shape: OutputSchema, *, nothing: str) -> None:
        if self.fields is not None or not self.is_terminal:
            from cli.output.machine_output import json_array, tsv

            self._write(tsv(pages, shape) if self.fields is None else json_array(pages, shape, self.fields))
            return
        from cli.output.rich_output import listing

        with self._drawing() as draw:
            is_empty = True
            for picture in listing(_not_empty(pages), shape, draw.console):
                draw(picture)
                is_empty = False
        if is_empty:
            self.note(nothing)

    def item(self, item: dict[str, Any], shape: OutputSchema) -> None:
        """Write one item in full."""
        from cli.output.machine_output import chosen, json_block, json_line, tsv

        if self.fields is not None:
            selected = chosen(item, shape, self.fields)
            self._write([(json_block if self.is_terminal else json_line)(selected), "\n"])
        elif not self.is_terminal:
            self._write(tsv([[item]], shape))
        else:
            from cli.output.rich_output import full_view

            self.pictures(full_view(item, shape))

    def pictures(self, pictures: Iterable[RenderableType]) -> None:
        """Draw renderables on the terminal."""
        with self._drawing() as draw:
            for picture in pictures:
                draw(picture)

    def line(self, text: str) -> None:
        """Write a line of data and flush."""
        self._write([f"{text}\n"])

    def event(self, item: dict[str, Any], shape: OutputSchema, *, with_heading: bool) -> None:
        """Write an event on one line: as JSON, TSV, or rendered."""
        from cli.output.machine_output import chosen, json_line, tsv

        if self.fields is not None:
            self.line(json_line(chosen(item, shape, self.fields)))
        elif not self.is_terminal:
            heading, *lines = tsv([[item]], shape)
            self._write([heading, *lines] if with_heading else lines)
        else:
            from cli.output.rich_output import event_line

            self._console(sys.stdout).print(event_line(item), soft_wrap=True)

    def document(self, parts: Iterable[bytes]) -> None:
        """Write a document unchanged; on a terminal, with hostile characters escaped."""
        if self.is_terminal:
            self._draw_document(parts)
        else:
            self._write_bytes(parts)
        self.end()

    def _draw_document(self, parts: Iterable[bytes]) -> None:
        with self._drawing() as draw:
            rest = b""
            for part in parts:
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    draw.write(_escaped(line) + "\n")
            if rest:
                draw.write(_escaped(rest) + "\n")

    def note(self, text: str) -> None:
        """Print a message to stderr."""
        self._say(text)

    def note_after(self, text: str) -> None:
        """Print a message to stderr once the data has been written, which may be in a pager meanwhile."""
        self._after.append(text)

    def end(self) -> None:
        """Print the messages that waited for the data."""
        while self._after:
            self.note(self._after.pop(0))

    def done(self, text: str) -> None:
        """Report success on stderr."""
        self._say(text, color="green" if sys.stderr.isatty() else "")

    def warn(self, text: str) -> None:
        """Print a warning to stderr."""
        self._say(text, color="yellow")

    def fail(self, message: str, *, hint: str = "", error: dict[str, Any] | None = None) -> None:
        """Print an error to stderr: as text, or with `--json` as the error object."""
        if self.as_json:
            from cli.output.machine_output import json_line

            self._say_raw(json_line({"error": error or {"code": "failed", "message": message, "hint": hint or None}}))
            return
        self._say(f"Error: {message}", color="red")
        if hint:
            self._say(hint)

    def confirm(self, question: str, *, yes: bool, shown: str = "") -> None:
        """Ask for confirmation before an irreversible action. Raises Declined, or UsageError without a terminal."""
        if yes:
            return
        if not self.can_ask:
            raise click.UsageError(f"{question} Cannot prompt without a terminal: pass --yes to confirm.")
        if shown:
            self.note(shown)
        sys.stderr.write(f"{visible(question)} [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Declined

    @property
    def can_ask(self) -> bool:
        """True if somebody can be asked: stdin and stderr are terminals."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def ask(self, label: str) -> str:
        """Ask for a line, which may be empty. Raises Abort at the end of input."""
        sys.stderr.write(f"{visible(label)}: ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            self._say_raw("")
            raise click.Abort
        return line.strip()

    @contextmanager
    def progress(self, title: str, total: int | None, *, amid_output: bool = False) -> Iterator[Advance]:
        """Show a progress bar on stderr, if it is a terminal. With `amid_output`, data is written to stdout meanwhile:
        the bar is then hidden if stdout is a terminal, too."""
        if not sys.stderr.isatty() or (amid_output and self.is_terminal):
            yield lambda: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(title, markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._console(sys.stderr), transient=True) as bar:
            task = bar.add_task("", total=total)
            yield lambda: bar.advance(task)

    def _say(self, text: str, *, color: str = "") -> None:
        shown = "\n".join(visible_lines(text))
        self._say_raw(click.style(shown, fg=color) if color and self._has_colors(sys.stderr) else shown)

    def _say_raw(self, text: str) -> None:
        try:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()
        except OSError:
            pass  # stderr is closed.

    def _write(self, parts: Iterable[str]) -> None:
        """Write to stdout, flushing each part."""
        for part in parts:
            try:
                sys.stdout.write(part)
                sys.stdout.flush()
            except BrokenPipeError:
                raise OutputClosed from None

    def _write_bytes(self, parts: Iterable[bytes]) -> None:
        for part in parts:
            try:
                sys.stdout.buffer.write(part)
                sys.stdout.buffer.flush()
            except BrokenPipeError:
                raise OutputClosed from None

    def _has_colors(self, stream: Any) -> bool:
        plain = self._environment.get("NO_COLOR") or self._environment.get("TERM", "dumb") == "dumb"
        return not plain and stream.isatty()

    def _console(self, stream: Any, *, real: Any = None) -> Console:
        from rich.console import Console

        has_colors = self._has_colors(real or stream)
        size = shutil.get_terminal_size()
        return Console(
            file=stream,
            width=size.columns,
            height=size.lines,
            color_system="auto" if has_colors else None,
            force_terminal=has_colors or None,
            markup=False,
            highlight=False,
            emoji=False,
            legacy_windows=False,
        )

    @contextmanager
    def _drawing(self) -> Iterator[_Drawing]:
        from cli.output.pager import Paged, PagerClosed

        paged = Paged(self._environment, enabled=self.uses_pager)
        try:
            yield _Drawing(paged, self._console(paged, real=sys.stdout))
        except PagerClosed:
            pass
        finally:
            paged.close()


class _Drawing:
    """Draws on the terminal, through the pager if needed."""

    def __init__(self, stream: Any, console: Console) -> None:
        self.console = console
        self.write = stream.write

    def __call__(self, picture: RenderableType) -> None:
        # Unwrapped lines are left to the terminal, so that they can be copied as they are.
        self.console.print(picture, soft_wrap=getattr(picture, "no_wrap", None) is True)


def leave_quietly() -> int:
    """Exit silently by SIGPIPE, as programs do whose reader has closed the pipe. Returns the equivalent exit code on
    systems without signals."""
    import signal

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    return SIGPIPE_CODE


def _prefetch_first(pages: Pages) -> Pages:
    iterator = iter(pages)
    return chain(list(islice(iterator, 1)), iterator)


def _not_empty(pages: Pages) -> Pages:
    return (page for page in pages if page)


def _escaped(line: bytes) -> str:
    return "\n".join(visible_lines(line.decode(errors="backslashreplace")))
