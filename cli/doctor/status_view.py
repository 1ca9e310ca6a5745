"""How a relay is, drawn for people: what each part says, a bar for what waits in each shard, and findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from cli.doctor.relay_health import Status, format_seconds, parts
from cli.output.output_schemas import Column
from cli.output.rich_output import GAP, cell, paragraph

FULL, EIGHTHS = "█", " ▏▎▍▌▋▊▉"
BAR_CELLS = 24
CHECK_CELLS = 19
"""Of the longest name of a check."""
OLD_SECONDS = 10.0
"""Who waits for longer than that waits for something that is away."""
MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "trouble": ("✗", "red")}
_NAME, _STATE = Column("part", kind="name"), Column("state", kind="state")


def draw_status(status: Status) -> Iterator[RenderableType]:
    """The parts, then the shards."""
    grid = Table.grid(padding=(0, GAP))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for part in parts(status):
        if not part["part"].startswith("shard "):
            grid.add_row(cell(part["part"], _NAME), cell(part["state"], _STATE), paragraph(part["detail"]))
    yield grid
    if inbox := status.get("inbox"):
        yield Text()
        yield _draw_shards(inbox["shards"])


def _draw_shards(shards: list[dict[str, float | None]]) -> Table:
    """Each shard with its share of the longest backlog."""
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
    """A bar for a share of the whole, to an eighth of a cell; whatever is not nothing is seen."""
    eighths = max(round(share * BAR_CELLS * 8), 1 if share > 0 else 0)
    return (FULL * (eighths // 8) + EIGHTHS[eighths % 8]).rstrip()


def draw_findings(findings: Iterable[dict[str, str]]) -> Iterator[RenderableType]:
    """Each finding with a mark, and below what is not well the remedy, as they come."""
    for finding in findings:
        mark, color = MARKS[finding["state"]]
        grid = Table.grid(padding=(0, GAP, 0, 0))
        grid.add_column(width=1)
        grid.add_column(width=CHECK_CELLS)
        grid.add_column(overflow="fold")
        grid.add_row(Text(mark, style=color), cell(finding["check"], _NAME), paragraph(finding["detail"]))
        if finding["remedy"]:
            grid.add_row("", Text("what to do", style=color), paragraph(finding["remedy"]))
        yield grid
