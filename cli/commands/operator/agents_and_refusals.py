"""Lists a relay's agents and its rejected requests."""

from __future__ import annotations

from typing import Any

import click

from cli.backends.pages import pages
from cli.command_declaration import command, limit_option
from cli.context import CliContext
from cli.output.table_columns import AGENT, REFUSAL, OutputSchema

CAUSES = (
    *("address", "bad_signature", "clock_skew", "conflict", "media_type", "missing_scope", "no_key", "not_json"),
    *("rate", "schema", "too_large", "too_slow", "unknown_key"),
)


@command("agents", AGENT)
@limit_option()
def agents(tool: CliContext, limit: int) -> None:
    """List agents that can receive tasks."""
    _list(tool, "read_agents", {}, AGENT, limit=limit, nothing="No agents registered.")


@command("refusals", REFUSAL)
@click.option("--cause", type=click.Choice(CAUSES), help="Filter by cause.")
@limit_option()
def refusals(tool: CliContext, cause: str | None, limit: int) -> None:
    """List recently rejected requests with their causes."""
    _list(tool, "read_refusals", {"cause": cause}, REFUSAL, limit=limit, nothing="No rejected requests.")


def _list(
    tool: CliContext, address: str, wanted: dict[str, Any], shape: OutputSchema, *, limit: int, nothing: str
) -> None:
    from cli.backends.relay_lists import fetch_page

    found = pages(fetch_page(tool.client, address, wanted), limit=limit, on_more=tool.terminal.note_after)
    tool.terminal.items(found, shape, nothing=nothing)
