"""Logs in to a relay, and out."""

from __future__ import annotations

import sys

from cli.command_declaration import argument, command
from cli.context import CliContext
from cli.output.table_columns import Column, OutputSchema
from models.routes import path_to

_LOGIN = OutputSchema((Column("url", "Relay"), Column("file", "Stored in")), id_path="url")


@command("login", _LOGIN)
@argument("url")
def login(tool: CliContext, url: str) -> None:
    """Log in to a relay. With --profile NAME, beside other logins, among which `profile use` chooses.

    URL defaults to https, or to http for this machine. The key is prompted for, or read from stdin, and is checked
    before it is stored in a file that only you can read."""
    from agent.http.client import Client
    from agent.http.relay_url import is_loopback, parse_address, parse_key, plain_http_hosts, require_encryption
    from cli.configuration import store_login

    address = parse_address(url)
    plain_hosts = plain_http_hosts(tool.environment)
    require_encryption(address, plain_hosts)
    key = parse_key(_ask_key(address))
    if address.startswith("http://") and not is_loopback(address):
        tool.terminal.warn(
            "This connection is not encrypted: anyone on the network path can read the key and all data."
        )
    client = Client(address, key, plain_hosts=plain_hosts, on_retry=tool.terminal.warn)
    try:
        _check_key(tool, client)
    finally:
        client.close()
    path = store_login(tool.environment, url=address, key=key)
    named = f" as {tool.profile}" if tool.profile else ""
    tool.terminal.done(f"Logged in to {address}{named}. Saved to {path}.")
    if tool.environment.get("RELAY_URL"):
        tool.terminal.warn("RELAY_URL is set and overrides this login.")
    if tool.terminal.as_json:
        tool.terminal.item({"url": address, "file": str(path)}, _LOGIN)


@command("logout", _LOGIN)
def logout(tool: CliContext) -> None:
    """Remove the stored login, or that of --profile NAME. The key stays valid until `keys revoke`."""
    from cli.configuration import forget_login

    path = forget_login(tool.environment)
    removed = f"Removed the login from {path}." if path and path.exists() else f"Removed {path}."
    tool.terminal.done(removed if path else "Not logged in.")
    if tool.terminal.as_json:
        tool.terminal.item({"url": None, "file": str(path) if path else None}, _LOGIN)


def _check_key(tool: CliContext, client: object) -> None:
    from agent.http.client import Client
    from models.errors import Forbidden

    assert isinstance(client, Client)
    try:
        client.get(path_to("read_sessions"), {"limit": 1})
    except Forbidden as error:
        tool.terminal.warn(f"The key is valid, but cannot read: {error.message}")


def _ask_key(address: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline()
    from getpass import getpass

    return getpass(f"Key for {address} (input is hidden): ", stream=sys.stderr)
