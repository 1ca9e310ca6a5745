"""Lists the stored logins, chooses one, and says who one is."""

from __future__ import annotations

from typing import Any

import click

from cli.command_declaration import CommandGroup, argument, command
from cli.completion import complete_profiles
from cli.context import CliContext
from cli.output.table_columns import Column, OutputSchema

PROFILE = OutputSchema(
    (
        Column("profile", "Profile", "id"),
        Column("url", "Relay", "name"),
        Column("is_current", "Current", "state"),
    ),
    id_path="profile",
)
IDENTITY = OutputSchema(
    (
        Column("backend", "Backend"),
        Column("place", "Place"),
        Column("profile", "Profile"),
        Column("name", "Name"),
        Column("scopes", "Scopes"),
        Column("sessions", "Sessions"),
        Column("key_from", "Key from"),
        Column("version", "Version"),
    ),
    id_path="name",
)


@click.group("profile", cls=CommandGroup)
def profile() -> None:
    """List and choose stored logins."""


@command("list", PROFILE)
def list_profiles(tool: CliContext) -> None:
    """List stored logins, without their keys."""
    from cli.configuration import stored_profiles

    rows = [item._asdict() | {"profile": item.name} for item in stored_profiles(tool.environment)]
    tool.terminal.items([rows], PROFILE, nothing="Not logged in. Run `session-cli login`.")


@command("use", PROFILE)
@argument("name", metavar="NAME", shell_complete=complete_profiles)
def use(tool: CliContext, name: str) -> None:
    """Use a stored login from now on."""
    from cli.configuration import choose_profile

    chosen = choose_profile(tool.environment, name)
    tool.terminal.done(f"Using {chosen.name}: {chosen.url}.")
    if tool.environment.get("RELAY_URL"):
        tool.terminal.warn("RELAY_URL is set and overrides this login.")
    if tool.terminal.as_json or not tool.terminal.is_terminal:
        tool.terminal.item(chosen._asdict() | {"profile": chosen.name}, PROFILE)


@command("whoami", IDENTITY)
def whoami(tool: CliContext) -> None:
    """Show which relay or store is used, and whose key. Checks the key."""
    tool.terminal.item(_on_relay(tool) if tool.uses_relay else _on_store(tool), IDENTITY)


def _on_relay(tool: CliContext) -> dict[str, Any]:
    from cli.configuration import find_login
    from models.routes import path_to

    login = find_login(tool.environment)
    known: dict[str, Any] = {"backend": "http", "place": login.url, "profile": login.profile, "key_from": login.origin}
    return {**known, **tool.client.get(path_to("whoami"))}


def _on_store(tool: CliContext) -> dict[str, Any]:
    from models.settings import read_settings

    settings = read_settings(tool.surroundings)
    tool.backend.page("list_sessions", {"limit": 1}, session_id=None)  # Raises if the key has no access.
    place = str(settings.data_dir)
    if tool.backend_choice == "postgres":
        from sqlalchemy.engine import make_url

        place = make_url(settings.database_url or "").render_as_string(hide_password=True)
    return {"backend": tool.backend_choice, "place": place, "scopes": ["admin"]}


for member in (list_profiles, use):
    profile.add_command(member)
