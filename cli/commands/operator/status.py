"""Shows the health of a relay."""

from __future__ import annotations

from cli.command_declaration import command
from cli.context import CliContext
from cli.output.table_columns import PART, Column, OutputSchema

STATUS = OutputSchema(
    tuple(
        Column(name)
        for name in (
            *("url", "version", "now", "key", "webhooks", "redis", "postgres", "workers", "agents", "inbox"),
            *("redis.state", "postgres.state", "postgres.revision", "postgres.dead_letters", "webhooks.taken"),
            *("workers.alive", "workers.busy", "inbox.waiting", "inbox.oldest_seconds", "hidden"),
        )
    ),
    id_path="url",
)


@command("status", STATUS)
def status(tool: CliContext) -> int:
    """Show relay health. Covers servers, workers, the backlog, and failed commands. Exits with 5 if a
    part is unavailable."""
    from cli.doctor.relay_health import fetch_status, is_well, parts

    found = fetch_status(tool.client)
    terminal = tool.terminal
    if terminal.as_json:
        terminal.item(found, STATUS)
    elif terminal.is_terminal:
        from cli.doctor.status_view import draw_status

        terminal.pictures(draw_status(found))
    else:
        terminal.items(iter([list(parts(found))]), PART, nothing="")
    return 0 if is_well(found) else 5
