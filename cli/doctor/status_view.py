"""Renders relay health: a line for each part, a bar for the backlog of each shard, and the doctor's findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from cli.doctor.relay_health import Status, format_seconds, parts
from cli.output.rich_output import GAP, cell, paragraph
from cli.output.table_columns import Column

FULL, EIGHTHS = "█", " ▏▎▍▌▋▊▉"
BAR_CELLS = 24
CHECK_CELLS = 19
"""The width of the longest check name."""
OLD_SECONDS = 10.0
"""The age from which a waiting command indicates an outage."""
MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "trouble": ("✗", "red")}
_NAME, _STATE = Column("part", kind="name"), Column("state", kind="state")


def draw_status(status: Status) -> Iterator[RenderableType]:
    """Render the parts, then the shards with a backlog."""
    grid = Table.grid(padding=(0, GAP))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for part in parts(status):
        if not part["part"].startswith("shard "):
            grid.add_row(cell(part["part"], _NAME), cell(part["state"], _STATE), paragraph(part["detail"]))
    yield grid
    if shards := [shard for shard in (status.get("inbox") or {}).get("shards", []) if shard["waiting"]]:
        yield Text()
        yield _draw_shards(shards)


def _draw_shards(shards: list[dict[str, float | None]]) -> Table:
    """Render each shard's backlog relative to the longest one."""
    grid = Table.grid(padding=(0, GAP))
    grid.add_column(no_wrap=True)
    grid.add_column(width=BAR_CELLS, no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    most = max((shard["waiting"] or 0 for shard in shards), default=0)
    for shard in shards:
        waiting, age = shard["waiting"] or 0, shard["oldest_seconds"]
        color = "red" if age and age > OLD_SECONDS else "yellow"
        grid.add_row(
            Text(f"shard {shard['shard']:02d}", style="dim"),
            Text(bar(waiting / most if most else 0.0), style=color),
            f"{waiting:,}",
            Text(f"oldest {format_seconds(age)}" if age is not None else "", style="dim"),
        )
    return grid


def bar(share: float) -> str:
    """Render a share of the whole as a bar, to an eighth of a cell. A share above zero is always visible."""
    eighths = max(round(share * BAR_CELLS * 8), 1 if share > 0 else 0)
    return (FULL * (eighths // 8) + EIGHTHS[eighths % 8]).rstrip()


def draw_findings(findings: Iterable[dict[str, str]]) -> Iterator[RenderableType]:
    """Render findings as they arrive, each with its remedy below."""
    for finding in findings:
        mark, color = MARKS[finding["state"]]
        grid = Table.grid(padding=(0, GAP, 0, 0))
        grid.add_column(width=1)
        grid.add_column(width=CHECK_CELLS)
        grid.add_column(overflow="fold")
        grid.add_row(Text(mark, style=color), cell(finding["check"], _NAME), paragraph(finding["detail"]))
        if finding["remedy"]:
            grid.add_row("", Text("fix", style=color), paragraph(finding["remedy"]))
        yield grid
