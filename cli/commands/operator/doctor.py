"""What is wrong, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.command_declaration import command
from cli.context import CliContext
from cli.output.escaping import visible
from cli.output.humanize import count
from cli.output.output_schemas import Column, OutputSchema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.doctor.diagnostics import Finding
    from cli.doctor.mcp_config import McpServer

FINDING = OutputSchema(
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
@click.option(
    "--pass-env", multiple=True, metavar="NAME", help="Let an address that the file names have this variable."
)
@click.option("--yes", "-y", is_flag=True, help="Run and call what the file names without asking.")
def doctor(tool: CliContext, looks_at_mcp: bool, config: Path | None, pass_env: tuple[str, ...], yes: bool) -> int:
    """Look for trouble, and tell what to do about it. What the relay cannot tell is asked of the servers
    themselves, if DATABASE_URL and REDIS_URL are set or a stack runs here. With --mcp: start or call each MCP server
    that Claude Code would, list its tools, and make one harmless call; what a file of yours names is shown first. With
    a trouble the exit code is 1."""
    if (config or pass_env or yes) and not looks_at_mcp:
        raise click.UsageError("--config, --pass-env and --yes go with --mcp.")
    agreed = _agree_on_servers(tool, config, yes=yes) if looks_at_mcp else []
    found: list[Finding] = []

    def pages() -> Iterator[list[dict[str, str]]]:
        for finding in _look_at_mcp(tool, agreed, pass_env) if looks_at_mcp else _look(tool):
            found.append(finding)
            yield [finding._asdict()]

    terminal = tool.terminal
    if terminal.as_json or not terminal.is_terminal:
        terminal.items(pages(), FINDING, nothing="")
    else:
        from cli.doctor.status_view import draw_findings

        terminal.pictures(draw_findings(page[0] for page in pages()))
    troubles = sum(finding.state == "trouble" for finding in found)
    warnings = sum(finding.state == "warning" for finding in found)
    if troubles:
        terminal.warn(f"{count(troubles, 'trouble')} and {count(warnings, 'warning')}.")
    else:
        terminal.done(f"No trouble; {count(warnings, 'warning')}.")
    return int(troubles > 0)


def _look(tool: CliContext) -> Iterator[Finding]:
    from cli.doctor.doctor import examine

    return examine(tool)


def _agree_on_servers(tool: CliContext, config: Path | None, *, yes: bool) -> list[McpServer]:
    """The servers of the file, once somebody agrees to what it names; the one of this program needs no agreement."""
    from cli.doctor.mcp_config import find_config, is_own, read_config

    path = find_config(config)
    servers = read_config(path, tool.environment)
    used = [server for server in servers if not (server.fault or server.lacks)]
    if is_own(path):
        servers = [server._replace(sends=()) for server in servers]
    elif used and not yes:
        lines = [f"{visible(str(path))} names this:", *(f"  {visible(server.name)}: {server.shown}" for server in used)]
        tool.terminal.confirm("Run and call it, with your rights?", yes=False, shown="\n".join(lines))
    tool.terminal.note(f"Asking the servers of {path}.")
    return servers


def _look_at_mcp(tool: CliContext, servers: list[McpServer], passed: tuple[str, ...]) -> list[Finding]:
    from cli.doctor.mcp_doctor import examine_servers

    return examine_servers(servers, tool.environment, passed=passed)
