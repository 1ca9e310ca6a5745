"""What is wrong, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

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
@click.option("--mcp", "looks_at_mcp", is_flag=True, help="Look at the MCP servers of a configuration file instead.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="That file: else .mcp.json or mcp-config.json in this folder, or the mcp-config.json of session-relay.",
)
def doctor(tool: Tool, looks_at_mcp: bool, config: Path | None) -> int:
    """Look for trouble, and tell what to do about it. What the relay cannot tell is asked of the servers
    themselves, if DATABASE_URL and REDIS_URL are set or a stack runs here. With --mcp: start or call each MCP server
    that Claude Code would, list its tools, and make one harmless call. With a trouble the exit code is 1."""
    if config and not looks_at_mcp:
        raise click.UsageError("--config goes with --mcp.")
    found: list[Finding] = []

    def pages() -> Iterator[list[dict[str, str]]]:
        for finding in _look_at_mcp(tool, config) if looks_at_mcp else _look(tool):
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


def _look(tool: Tool) -> Iterator[Finding]:
    from cli.checkup import examine

    return examine(tool)


def _look_at_mcp(tool: Tool, config: Path | None) -> list[Finding]:
    from cli.mcp_checkup import examine_servers
    from cli.mcp_config import find_config

    path = find_config(config)
    tool.terminal.note(f"Asking the servers of {path}.")
    return examine_servers(path, tool.environment)
