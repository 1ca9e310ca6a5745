"""What is wrong, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.command import command
from cli.shapes import Column, Shape
from cli.tool import Tool
from cli.words import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.findings import Finding

FINDING = Shape(
    (
        Column("check", "Check", "name"),
        Column("state", "State", "state"),
        Column("detail", "Found", "text"),
        Column("remedy", "What to do", "text"),
    ),
    id_path="check",
)


@command("doctor", FINDING)
def doctor(tool: Tool) -> int:
    """Look for trouble, and tell what to do about it. What the relay cannot tell is asked of the servers
    themselves, if DATABASE_URL and REDIS_URL are set or a stack runs here. With a trouble the exit code is 1."""
    from cli.checkup import examine

    found: list[Finding] = []

    def pages() -> Iterator[list[dict[str, str]]]:
        for finding in examine(tool):
            found.append(finding)
            yield [finding._asdict()]

    terminal = tool.terminal
    if terminal.as_json or not terminal.is_terminal:
        terminal.items(pages(), FINDING, nothing="")
    else:
        from cli.gauges import draw_findings

        terminal.pictures(draw_findings(page[0] for page in pages()))
    troubles = sum(finding.state == "trouble" for finding in found)
    warnings = sum(finding.state == "warning" for finding in found)
    if troubles:
        terminal.warn(f"{count(troubles, 'trouble')} and {count(warnings, 'warning')}.")
    else:
        terminal.done(f"No trouble; {count(warnings, 'warning')}.")
    return int(troubles > 0)
