"""Lists, shows, replays and discards dead letters and parked events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cli.backends.pages import pages
from cli.command_declaration import Body, CommandGroup, command, id_argument, limit_option, session_option, yes_option
from cli.context import CliContext
from cli.output.humanize import ago, count
from cli.output.table_columns import DEAD_LETTER, Column, OutputSchema
from models.routes import path_to, request_to

_IN_FULL = DEAD_LETTER._replace(
    columns=(*DEAD_LETTER.columns, Column("traceback", "Traceback", "text"), Column("payload", "Payload", "json"))
)
_REPLAYED = OutputSchema((Column("replayed", "Replayed", "number"),), more=("next_cursor",), id_path="replayed")
_DISCARDED = OutputSchema((Column("discarded", "Discarded", "number"),), id_path="discarded")


_SINGULAR = {False: "dead letter", True: "event"}
_PLURAL = {False: "dead letters", True: "parked events"}


@click.group("dead-letters", cls=CommandGroup)
def dead_letters() -> None:
    """List, replay and discard failed commands.

    `--parked` selects parked events instead: webhooks of third parties that arrived while their session was paused,
    completed or missing. They are kept for replay."""


def _parked_option() -> Callable[[Body], Body]:
    return click.option("--parked", "is_parked", is_flag=True, help="Parked events instead of dead letters.")


def _source_option() -> Callable[[Body], Body]:
    return click.option("--source", metavar="NAME", help="Sender, if not the owner of this key.")


@command("list", DEAD_LETTER)
@_parked_option()
@session_option()
@click.option("--source", metavar="NAME", help="Filter by sender.")
@click.option("--command", "name", metavar="NAME", help="Filter by command.")
@limit_option()
def list_dead(tool: CliContext, limit: int, is_parked: bool, **wanted: str | None) -> None:
    """List dead letters with their reasons, oldest first."""
    from cli.backends.relay_lists import fetch_page

    wanted["command"] = wanted.pop("name")
    wanted["status"] = _status(is_parked)
    found = pages(fetch_page(tool.client, "read_dead_letters", wanted), limit=limit, on_more=tool.terminal.note_after)
    tool.terminal.items(found, DEAD_LETTER, nothing=f"No {_PLURAL[is_parked]}.")


@command("show", _IN_FULL)
@id_argument("delivery_id")
@_source_option()
def show(tool: CliContext, delivery_id: str, source: str | None) -> None:
    """Show a dead letter or parked event with its payload and traceback."""
    tool.terminal.item(_find(tool, delivery_id, source), _IN_FULL)


@command("replay", _REPLAYED)
@id_argument("delivery_id", "[ID]", required=False)
@_parked_option()
@click.option("--all", "is_all", is_flag=True, help="Replay all that match, oldest first.")
@click.option("--session", "session_id", metavar="ID", help="With --all, filter by session.")
@click.option("--command", "name", metavar="NAME", help="With --all, filter by command.")
@_source_option()
def replay(
    tool: CliContext,
    delivery_id: str | None,
    is_all: bool,
    is_parked: bool,
    session_id: str | None,
    name: str | None,
    source: str | None,
) -> None:
    """Put a dead letter or parked event back into the inbox. Fix the cause first. A command takes effect once, however
    often it is replayed."""
    if is_all == (delivery_id is not None):
        raise click.UsageError("Pass either a delivery ID or --all.")
    if delivery_id is not None:
        target = request_to("replay_dead_letter", delivery_id=delivery_id)
        _, answer = tool.client.call(*target, {"source": source}, repeatable=True)
    else:
        wanted = {"status": _status(is_parked), "session_id": session_id, "command": name, "source": source}
        answer = _replay_all(tool, wanted)
    tool.terminal.done(f"Replayed {count(answer['replayed'], _SINGULAR[is_parked])}.")
    if tool.terminal.as_json or not tool.terminal.is_terminal:
        tool.terminal.item(answer, _REPLAYED)


@command("discard", _DISCARDED)
@id_argument("delivery_id")
@_source_option()
@yes_option()
def discard(tool: CliContext, delivery_id: str, source: str | None, yes: bool) -> None:
    """Discard a dead letter or parked event permanently. Its ID is kept, so that sending it again has no effect."""
    from datetime import UTC, datetime

    found = _find(tool, delivery_id, source)
    place = f" on {found['session_id']}" if found["session_id"] else ""
    since = ago(found["accepted_at"], now=datetime.now(UTC))
    tool.terminal.confirm(
        f"Permanently discard {delivery_id} ({found['command']}{place} from {found['source']}, accepted {since})?",
        yes=yes,
    )
    target = request_to("discard_dead_letter", delivery_id=delivery_id)
    _, answer = tool.client.call(*target, {"source": found["source"]}, repeatable=True)
    tool.terminal.done(f"Discarded {delivery_id}.")
    if tool.terminal.as_json or not tool.terminal.is_terminal:
        tool.terminal.item(answer, _DISCARDED)


def _replay_all(tool: CliContext, wanted: dict[str, Any]) -> dict[str, Any]:
    replayed, cursor = 0, None
    while True:
        query = {**wanted, "limit": 500, "cursor": cursor}
        _, answer = tool.client.call(*request_to("replay_dead_letters"), query, repeatable=True)
        replayed, cursor = replayed + answer["replayed"], answer["next_cursor"]
        if cursor is None:
            return {"replayed": replayed}


def _find(tool: CliContext, delivery_id: str, source: str | None) -> dict[str, Any]:
    return tool.client.get(path_to("read_dead_letter", delivery_id=delivery_id), {"source": source})


def _status(is_parked: bool) -> str | None:
    return "parked" if is_parked else None


for member in (list_dead, show, replay, discard):
    dead_letters.add_command(member)
