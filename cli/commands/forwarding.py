"""Tries out integrations: forwards a session's events to a local address, and sends the examples."""

from __future__ import annotations

import re
from typing import Any

import click

from cli.command_declaration import argument, command, session_argument, session_option, yes_option
from cli.commands.watch import follow, latest_cursor
from cli.completion import complete_examples
from cli.context import CliContext
from cli.output.table_columns import RECEIPT, Column, OutputSchema

FORWARDED = OutputSchema(
    (
        Column("at", "Time", "time"),
        Column("event", "Event", "name"),
        Column("webhook_id", "ID", "id"),
        Column("status", "Status", "state"),
        Column("message", "Message", "text"),
        Column("http_status"),
        Column("attempts"),
        Column("cursor"),
    ),
    id_path="webhook_id",
)
_EXAMPLE = OutputSchema(
    (
        Column("example", "Example", "id"),
        Column("command", "Command", "name"),
        Column("session_id", "Session", "plain"),
    ),
    id_path="example",
)
_BEFORE = {
    "example-solar-roof": "create_session",
    "example-weekend-trip": "batch_workflow",
    "example-bike-repair": "complete_workflow",
}
"""The example that creates each session of the examples."""
SECRET_VARIABLE = "FORWARD_SECRET"  # noqa: S105 - the name of a variable


@command("listen", FORWARDED)
@session_argument()
@click.option("--forward-to", "url", required=True, metavar="URL", help="Where to post each event.")
@click.option("--after", metavar="CURSOR", help="Start after the event with this `cursor`.  [default: now]")
def listen(tool: CliContext, session_id: str, url: str, after: str | None) -> None:
    """Forward a session's events to a local address. Each is posted, until Ctrl-C, signed as Standard Webhooks are with
    the secret in FORWARD_SECRET, or with a new one, which is shown."""
    from agent.http.relay_url import plain_http_hosts, require_encryption
    from cli.webhook_sender import WebhookSender, new_secret

    address = receiver_url(url)
    require_encryption(address, plain_http_hosts(tool.environment))
    secret = tool.environment.get(SECRET_VARIABLE, "").strip()
    sender = WebhookSender(address, secret or new_secret())
    cursor = after if after is not None else latest_cursor(tool, session_id)
    if not secret:
        tool.terminal.note(f"Signing secret: {sender.secret}")
    tool.terminal.note(f"Forwarding the events of {session_id} to {address}. Press Ctrl-C to stop.")
    is_first = True
    for event in follow(tool, session_id, cursor):
        sent = sender.send(session_id, event)
        tool.terminal.event({**event, **sent._asdict()}, FORWARDED, with_heading=is_first)
        if sent.status == "failed":
            again = f" To begin with this event: --after {cursor}" if cursor else ""
            tool.terminal.warn(f"{sent.reason}{again}")
        is_first, cursor = False, event["cursor"]


def receiver_url(text: str) -> str:
    """Complete the URL of a receiver as that of a relay, but keep its path and query as they are. Raises
    SettingsError."""
    from agent.http.relay_url import parse_address

    origin, rest, _ = re.split(r"^((?:\w+://)?[^/?#]*)([^#]*)", text.strip(), maxsplit=1)[1:]
    return parse_address(origin) + rest


@command("trigger", RECEIPT)
@argument("name", metavar="[EXAMPLE]", required=False, shell_complete=complete_examples)
@session_option("Send it for this session instead of its own.")
@click.option("--list", "is_list", is_flag=True, help="List the examples.")
@yes_option()
def trigger(tool: CliContext, name: str | None, session_id: str | None, is_list: bool, yes: bool) -> None:
    """Send one of the examples, and show the result. Without EXAMPLE, lists them. The session of an example is created
    before, if it is missing."""
    from cli.configuration import EXAMPLES
    from models.errors import NotFound

    known = sorted(path.stem for path in EXAMPLES.glob("*.json") if path.stem != "error_examples")
    if is_list or name is None:
        rows = [{"example": stem, **_read(stem)} for stem in known]
        tool.terminal.items([rows], _EXAMPLE, nothing="")
        return
    if name not in known:
        raise click.UsageError(f"No example {name!r}. Run `session-cli trigger` to list them.")
    example = _read(name)
    if session_id and "confirm" in (example.get("data") or {}):
        tool.terminal.confirm(f"Permanently delete {session_id} and its contents?", yes=yes)
    try:
        answer = _send(tool, example, session_id)
    except NotFound as error:
        before = _BEFORE.get(str(example.get("session_id")))
        if session_id or error.code != "session_not_found" or before in (None, name):
            raise
        tool.terminal.note(f"Sending {before} first, which creates the session.")
        _send(tool, _read(str(before)), None)
        answer = _send(tool, example, None)
    tool.terminal.done(answer["message"])
    tool.terminal.item(answer, RECEIPT)


def _read(name: str) -> dict[str, Any]:
    import msgspec

    from cli.configuration import EXAMPLES

    return msgspec.json.decode((EXAMPLES / f"{name}.json").read_bytes(), type=dict[str, Any])


def _send(tool: CliContext, example: dict[str, Any], session_id: str | None) -> dict[str, Any]:
    data = dict(example.get("data") or {})
    if session_id and "confirm" in data:
        data["confirm"] = session_id
    return tool.backend.send(example["command"], data, session_id=session_id or example.get("session_id"))
