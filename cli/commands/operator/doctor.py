"""Diagnoses problems of the relay, its servers, and configured MCP servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.command_declaration import command
from cli.context import CliContext
from cli.output.escaping import visible
from cli.output.humanize import count
from cli.output.table_columns import Column, OutputSchema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.doctor.findings import Finding
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
@click.option("--mcp", "checks_mcp", is_flag=True, help="Check the MCP servers of a configuration file instead.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Configuration file.  [default: ./.mcp.json, ./mcp-config.json, or session-relay's own mcp-config.json]",
)
@click.option("--pass-env", multiple=True, metavar="NAME", help="Allow sending this variable to URLs in the file.")
@click.option("--yes", "-y", is_flag=True, help="Skip the confirmation prompt.")
def doctor(tool: CliContext, checks_mcp: bool, config: Path | None, pass_env: tuple[str, ...], yes: bool) -> int:
    """Diagnose problems and suggest fixes. Checks that the relay cannot answer are made on Postgres and Redis directly,
    if DATABASE_URL and REDIS_URL are set or a local stack runs. With --mcp, each MCP server of a configuration file is
    started or called as Claude Code would: its tools are listed and one read-only call is made, after a prompt that
    shows what will run. Exits with 1 if there are problems."""
    if (config or pass_env or yes) and not checks_mcp:
        raise click.UsageError("--config, --pass-env and --yes require --mcp.")
    approved = _approve_servers(tool, config, yes=yes) if checks_mcp else []
    found: list[Finding] = []

    def pages() -> Iterator[list[dict[str, str]]]:
        for finding in _check_mcp(tool, approved, pass_env) if checks_mcp else _check_relay(tool):
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
        terminal.warn(f"{count(troubles, 'problem')}, {count(warnings, 'warning')}.")
    else:
        terminal.done(f"No problems, {count(warnings, 'warning')}.")
    return int(troubles > 0)


def _check_relay(tool: CliContext) -> Iterator[Finding]:
    from cli.doctor.checks import examine

    return examine(tool)


def _approve_servers(tool: CliContext, config: Path | None, *, yes: bool) -> list[McpServer]:
    """Read the servers of the file, and ask for approval to run them. The file that ships with session-relay needs
    none."""
    from cli.doctor.mcp_config import find_config, is_own, read_config

    path = find_config(config)
    servers = read_config(path, tool.environment)
    used = [server for server in servers if not (server.fault or server.lacks)]
    if is_own(path):
        servers = [server._replace(sends=()) for server in servers]
    elif used and not yes:
        lines = [f"{visible(str(path))} contains:", *(f"  {visible(server.name)}: {server.shown}" for server in used)]
        tool.terminal.confirm("Run and call these with your privileges?", yes=False, shown="\n".join(lines))
    tool.terminal.note(f"Checking the servers of {path}.")
    return servers


def _check_mcp(tool: CliContext, servers: list[McpServer], passed: tuple[str, ...]) -> list[Finding]:
    from cli.doctor.mcp_doctor import examine_servers

    return examine_servers(servers, tool.environment, passed=passed)
