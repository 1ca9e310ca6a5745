"""Creates, lists and revokes API keys."""

from __future__ import annotations

from typing import Any

import click

from cli.command_declaration import CommandGroup, argument, command, id_argument, yes_option
from cli.completion import complete_keys
from cli.context import CliContext
from cli.output.table_columns import KEY, NEW_KEY, Column, OutputSchema
from models.routes import path_to, request_to

_REVOKED = OutputSchema((Column("revoked", "Revoked"), Column("recorded", "Recorded", "state")), id_path="revoked")
SCOPES = ("read", "write", "delegate", "agent", "admin", "hook")


@click.group("keys", cls=CommandGroup)
def keys() -> None:
    """Create, list and revoke API keys."""


@command("create", NEW_KEY)
@argument("name")
@click.option(
    "--scope", "-s", "scopes", multiple=True, required=True, type=click.Choice(SCOPES), help="Scope; may be repeated."
)
@click.option("--sessions", metavar="PATTERN", help="Restrict to matching sessions, such as 'chat-*'.")
@click.option("--rotate", is_flag=True, help="Add a key for a sender that already has one.")
def create(tool: CliContext, name: str, scopes: tuple[str, ...], sessions: str | None, rotate: bool) -> None:
    """Create a key for the sender NAME. It is shown only once."""
    import msgspec

    wanted = {"name": name, "scopes": list(scopes), "rotate": rotate} | ({"sessions": sessions} if sessions else {})
    _, made = tool.client.call(*request_to("create_key"), body=msgspec.json.encode(wanted))
    tool.terminal.item(made, NEW_KEY)
    tool.terminal.note("Save the key now: it will not be shown again.")


@command("list", KEY)
def list_keys(tool: CliContext) -> None:
    """List keys without their secrets, oldest first. Includes revoked keys."""
    tool.terminal.items(iter([_all_keys(tool)]), KEY, nothing="No keys besides the relay's own API_KEY.")


@command("revoke", _REVOKED)
@id_argument("name_or_id", "NAME|ID", shell_complete=complete_keys)
@yes_option()
def revoke(tool: CliContext, name_or_id: str, yes: bool) -> None:
    """Revoke a key, or all keys of a sender."""
    affected = [key for key in _all_keys(tool) if name_or_id in (key["key_id"], key["name"]) and not key["revoked_at"]]
    if affected:
        keys = ", ".join(f"{key['name']} ({key['key_id']}: {' '.join(key['scopes'])})" for key in affected)
        tool.terminal.confirm(f"Permanently revoke {keys}?", yes=yes)
    _, answer = tool.client.call(*request_to("revoke_key", name_or_id=name_or_id), repeatable=True)
    tool.terminal.done(f"Revoked {', '.join(key['key_id'] for key in answer['revoked']) or 'nothing'}.")
    if tool.terminal.as_json or not tool.terminal.is_terminal:
        tool.terminal.item(answer, _REVOKED)


def _all_keys(tool: CliContext) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = tool.client.get(path_to("read_keys"))["items"]
    return items


for member in (create, list_keys, revoke):
    keys.add_command(member)
