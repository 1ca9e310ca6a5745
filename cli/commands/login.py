"""Logging in to a relay, and out again."""

from __future__ import annotations

import sys

import click

from cli.command_declaration import command
from cli.context import CliContext
from cli.output.output_schemas import Column, OutputSchema
from models.routes import path_to

_LOGIN = OutputSchema((Column("url", "Relay"), Column("file", "Stored in")), id_path="url")


@command("login", _LOGIN)
@click.argument("url", required=False)
def login(tool: CliContext, url: str | None) -> None:
    """Store the address of a relay and a key for it. Without a scheme the address means https, unless it is on this
    machine. The key is asked for, or read from standard input; it is tried before it is stored, for this user alone."""
    from agent.http.client import Client
    from agent.http.relay_url import is_loopback, parse_address, parse_key, plain_http_hosts, require_encryption
    from cli.configuration import store_login

    address = parse_address(url or _ask_url())
    plain_hosts = plain_http_hosts(tool.environment)
    require_encryption(address, plain_hosts)
    key = parse_key(_ask_key(address))
    if address.startswith("http://") and not is_loopback(address):
        tool.terminal.warn(
            "This address is not encrypted: whoever is on the way can read the key and all that is sent."
        )
    client = Client(address, key, plain_hosts=plain_hosts, on_retry=tool.terminal.warn)
    try:
        _try(tool, client)
    finally:
        client.close()
    path = store_login(tool.environment, url=address, key=key)
    tool.terminal.done(f"Logged in to {address}; stored in {path}.")
    if tool.environment.get("RELAY_URL"):
        tool.terminal.warn("RELAY_URL is set, and goes before what is stored.")
    if tool.terminal.as_json:
        tool.terminal.item({"url": address, "file": str(path)}, _LOGIN)


@command("logout", _LOGIN)
def logout(tool: CliContext) -> None:
    """Remove what `login` has stored. The key stays valid: `keys revoke` ends it."""
    from cli.configuration import forget_login

    path = forget_login(tool.environment)
    tool.terminal.done(f"Removed {path}." if path else "Nothing was stored.")
    if tool.terminal.as_json:
        tool.terminal.item({"url": None, "file": str(path) if path else None}, _LOGIN)


def _try(tool: CliContext, client: object) -> None:
    from agent.http.client import Client
    from models.errors import Forbidden

    assert isinstance(client, Client)
    try:
        client.get(path_to("read_sessions"), {"limit": 1})
    except Forbidden as error:
        tool.terminal.warn(f"The key is valid, but cannot read: {error.message}")


def _ask_url() -> str:
    if not sys.stdin.isatty():
        raise click.UsageError("Name the address of the relay: session-cli login URL")
    sys.stderr.write("Address of the relay: ")
    sys.stderr.flush()
    return sys.stdin.readline()


def _ask_key(address: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline()
    from getpass import getpass

    return getpass(f"Key for {address} (it is not shown): ", stream=sys.stderr)
