"""Sends a webhook from a file, as any sender would."""

from __future__ import annotations

from typing import Any

import click

from cli.command_declaration import command
from cli.context import CliContext
from cli.output.table_columns import RECEIPT, Column, OutputSchema

_RESULT = OutputSchema(
    (
        Column("number", "Item", "number"),
        Column("command", "Command", "name"),
        Column("status", "Status", "state"),
        Column("message", "Message", "text"),
    ),
    id_path="number",
)
"""A command of a batch."""


@command("send", RECEIPT)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), metavar="FILE|-")
@click.option("--wait", type=click.FloatRange(0, 40), metavar="SECONDS", help="Wait up to SECONDS for the result.")
def send(tool: CliContext, file: str, wait: float | None) -> None:
    """Send a command as a webhook. FILE holds {"command": …, "session_id": …, "data": {…}}. Without --wait, or if it
    times out, a receipt is shown. Network errors are retried; the command still takes effect once."""
    import msgspec

    from cli.files import reading

    with reading(file) as stream:
        body = stream.read()
    try:
        content = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        content = None  # The relay reports the error.
    answer = _post(tool, body, content, wait) if tool.uses_relay else _apply(tool, content)
    tool.terminal.done(answer.get("message") or f"{answer['status'].capitalize()}: {answer['delivery_id']}")
    results = (answer.get("data") or {}).get("results")
    if not results or tool.terminal.as_json or not tool.terminal.is_terminal:
        tool.terminal.item(answer, RECEIPT)
        return
    tool.terminal.item({**answer, "data": None}, RECEIPT)
    rows = [{"number": number, **_brief(result)} for number, result in enumerate(results, 1)]
    tool.terminal.items([rows], _RESULT, nothing="")


def _brief(result: dict[str, Any]) -> dict[str, Any]:
    from models.commands.interface_names import to_cli

    error = result.get("error") or {}
    said = [result.get("message"), error.get("hint") and to_cli(error["hint"])]
    return {**result, "message": " ".join(filter(None, said))}


def _post(tool: CliContext, body: bytes, content: Any, wait: float | None) -> dict[str, Any]:
    from agent.http.command_client import new_delivery_id, post_envelope

    has_id = isinstance(content, dict) and content.get("id") is not None
    delivery_id = None if has_id else new_delivery_id()
    return post_envelope(tool.client, body, delivery_id=delivery_id, wait_seconds=wait)[1]


def _apply(tool: CliContext, content: Any) -> dict[str, Any]:
    if not isinstance(content, dict) or not isinstance(content.get("command"), str):
        raise click.UsageError('Invalid webhook: expected {"command": …, "session_id": …, "data": {…}}.')
    return tool.backend.send(
        content["command"],
        content.get("data") or {},
        session_id=content.get("session_id"),
        delivery_id=content.get("id"),
    )
