"""Renders tables, cards and sheets for terminals of any width. All untrusted text is escaped first.

This module imports rich, so it is imported only for a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cli.output.escaping import visible, visible_lines
from cli.output.humanize import ago
from cli.output.machine_output import json_block, json_line
from cli.output.table_columns import Column, OutputSchema, at_path
from sessions.reads.prose import describe

GAP = 2
NARROWEST_NAME = 20
"""The minimum width of a name column in a table; below it, cards are drawn."""
WIDEST_NAME = 48
MARK = "**"
"""Surrounds each match in a snippet."""
_STATES = {
    **dict.fromkeys(("active", "applied", "completed", "online", "ok", "done", "new", "created"), "green"),
    **dict.fromkeys(("paused", "accepted", "pending", "claimed", "running", "input_required"), "yellow"),
    **dict.fromkeys(("waiting", "weak", "parked"), "yellow"),
    **dict.fromkeys(("failed", "rejected", "cancelled", "unavailable", "refused"), "red"),
}
_STYLES = {"id": "cyan", "name": "bold", "time": "dim"}


def listing(pages: Iterable[list[dict[str, Any]]], shape: OutputSchema, console: Console) -> Iterator[RenderableType]:
    """Render pages as they arrive. The first page decides the widths of the columns, or that cards are needed."""
    widths: dict[Column, int] | None = None
    is_first = True
    for page in pages:
        if is_first and not shape.as_cards:
            widths = _fit(page, shape, console.width)
        if widths:
            yield _table(page, widths, with_heading=is_first)
        else:
            for item in page:
                yield card(item, shape)
        is_first = False


def card(item: dict[str, Any], shape: OutputSchema) -> RenderableType:
    """Render an item over several lines: its id and name, its details, its text."""
    shown = [column for column in shape.columns if column.heading or column.kind == "time"]
    head = Text()
    small = Text(style="dim")
    body: list[RenderableType] = []
    for column in shown:
        value = cell(at_path(item, column.path), column)
        if not value.plain:
            continue
        if column.kind in ("id", "name"):
            head.append_text(Text("  ") if head.plain else Text())
            head.append_text(value)
        elif column.kind in _BODIES:
            found = at_path(item, column.path)
            draw = _snippet if column.path == "snippet" else _BODIES[column.kind]
            body.append(Padding(draw(found), (0, 0, 0, GAP)))
        else:
            label = f"{column.heading.lower()} " if column.kind in ("date", "number") else ""
            small.append_text(Text(" · " if small.plain else "")).append(label).append_text(value)
    lines = [head, *([Padding(small, (0, 0, 0, GAP))] if small.plain else []), *body, Text()]
    return Group(*lines)


def sheet(item: dict[str, Any], shape: OutputSchema) -> RenderableType:
    """Render one item with one line per non-empty field."""
    grid = Table.grid(padding=(0, GAP))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for column in shape.columns:
        value = at_path(item, column.path)
        if value in (None, "", [], {}) or column.kind == "json":
            continue
        label = _label(column)
        kind = "time" if column.path.endswith("_at") else column.kind
        is_body = kind in _BODIES or column.path in ("context", "content")
        text = _BODIES.get(kind, paragraph)(value) if is_body else cell(value, column._replace(kind=kind))
        grid.add_row(label, text)
    return grid


def full_view(item: dict[str, Any], shape: OutputSchema) -> Iterator[RenderableType]:
    """Render one item: its sheet, then each field of JSON as a block, whose lines are not wrapped."""
    yield sheet(item, shape)
    for column in shape.columns:
        value = at_path(item, column.path)
        if column.kind == "json" and value not in (None, "", [], {}):
            yield Text(_label(column), style="dim")
            yield Text(json_block(value), no_wrap=True, overflow="ignore")


def _label(column: Column) -> str:
    return column.heading or column.path.split(".")[-1].replace("_", " ").capitalize()


def event_line(event: dict[str, Any]) -> Text:
    """Render a session's event on one line: local time, event, status, message, source."""
    at = str(event.get("at") or "")
    line = Text()
    line.append(f"{visible(_clock(at))}  ", style="dim")
    line.append_text(cell(event.get("event"), Column("event", kind="name")))
    if (status := event.get("status")) not in ("applied", event.get("event")):
        line.append("  ").append_text(cell(status, Column("status", kind="state")))
    line.append(f"  {visible(str(event.get('message') or ''))}")
    return line.append(f"  {visible(str(event.get('source') or ''))}", style="dim")


def _clock(at: str) -> str:
    try:
        return f"{datetime.fromisoformat(at).astimezone():%H:%M:%S}"
    except ValueError:
        return at


def cell(value: Any, column: Column) -> Text:
    """Render a value on one line."""
    if value is None or value == []:
        return Text()
    if column.kind == "time":
        return Text(visible(ago(str(value), now=datetime.now(UTC))), style="dim")
    if isinstance(value, bool):
        value = "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = ", ".join(value)
    text = visible(value) if isinstance(value, str) else json_line(value)
    return Text(text, style=_STATES.get(text, "") if column.kind == "state" else _STYLES.get(column.kind, ""))


def paragraph(value: Any, *, style: str = "") -> Text:
    """Render multi-line text."""
    written = value if isinstance(value, str) else json_line(value)
    return Text("\n".join(visible_lines(written)), style=style, overflow="fold")


def prose(value: Any) -> Text:
    """Render a memory's content in words: an object of plain values without JSON."""
    described = None if isinstance(value, str) else describe(value)
    return paragraph(value if described is None else described.text)


_BODIES: dict[str, Callable[[Any], Text]] = {"text": paragraph, "content": prose}
"""Renders the kinds that may have several lines."""


def _snippet(value: Any) -> Text:
    """Render a search snippet with its matches in bold."""
    text = Text(overflow="fold")
    for number, piece in enumerate(visible(str(value)).split(MARK)):
        text.append(piece, style="bold yellow" if number % 2 else "")
    return text


def _fit(page: list[dict[str, Any]], shape: OutputSchema, room: int) -> dict[Column, int] | None:
    """Compute the widths of the columns that fit, or None if too few do."""
    columns = [column for column in shape.columns if column.heading]
    natural = {
        column: max(
            [cell_len(column.heading), *(cell_len(cell(at_path(item, column.path), column).plain) for item in page)]
        )
        for column in columns
        if column.kind == "number" or any(at_path(item, column.path) not in (None, [], "") for item in page)
    }
    while natural:
        flexible = [column for column in natural if column.kind in ("name", "text")]
        least = {
            column: min(width, NARROWEST_NAME) if column in flexible else width for column, width in natural.items()
        }
        left = room - sum(least.values()) - GAP * (len(natural) - 1)
        if left >= 0:
            for column in flexible:
                more = min(max(natural[column], 0) - least[column], left, max(WIDEST_NAME - least[column], 0))
                least[column] += more
                left -= more
            return least
        if len(natural) <= shape.least_columns:
            return None
        natural.popitem()
    return None


def _table(page: list[dict[str, Any]], widths: dict[Column, int], *, with_heading: bool) -> Table:
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, show_header=with_heading, header_style="dim")
    for column, width in widths.items():
        justify: Any = "right" if column.kind == "number" else "left"
        table.add_column(column.heading, width=width, no_wrap=True, overflow="ellipsis", justify=justify)
    for item in page:
        table.add_row(*(cell(at_path(item, column.path), column) for column in widths))
    return table
