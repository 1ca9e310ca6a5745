"""Shows webhooks and their outcomes."""

from __future__ import annotations

import click

from cli.backends.pages import pages
from cli.command_declaration import command, id_argument, limit_option, session_option
from cli.context import CliContext
from cli.output.table_columns import DELIVERY, Column
from models.routes import path_to

_IN_FULL = DELIVERY._replace(
    columns=(*DELIVERY.columns, Column("reason"), Column("result", "Result", "json"), Column("error", "Error", "json"))
)


@command("deliveries", _IN_FULL)
@id_argument("delivery_id", "[ID]", required=False)
@click.option(
    "--status",
    type=click.Choice(["accepted", "applied", "rejected", "parked", "failed", "ignored"]),
    help="Filter by status; accepted means waiting to be applied.",
)
@session_option()
@click.option("--source", metavar="NAME", help="Filter by sender.")
@limit_option()
def deliveries(
    tool: CliContext,
    delivery_id: str | None,
    status: str | None,
    session_id: str | None,
    source: str | None,
    limit: int,
) -> None:
    """List webhooks and their outcomes, newest first. With an ID, show one webhook with its response."""
    from cli.backends.relay_lists import fetch_page

    if delivery_id is not None:
        found = tool.client.get(path_to("read_delivery", delivery_id=delivery_id), {"source": source})
        tool.terminal.item(found, _IN_FULL)
        return
    wanted = {"status": status, "session_id": session_id, "source": source}
    listed = pages(fetch_page(tool.client, "read_deliveries", wanted), limit=limit, on_more=tool.terminal.note_after)
    tool.terminal.items(listed, DELIVERY, nothing="No deliveries found.")
