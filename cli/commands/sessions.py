"""Sessions from their start to their end: make, list, show, pause, resume, complete, delete."""

from __future__ import annotations

from typing import Any

import click

from cli.backends.pages import PIECE_CHARACTERS, listed
from cli.command_declaration import command, limit_option, session_argument, yes_option
from cli.context import CliContext
from cli.output.humanize import contents
from cli.output.output_schemas import BUNDLE, SESSION, SESSION_IN_FULL


@command("create", SESSION_IN_FULL)
@session_argument()
@click.option("--title", help="What it is about; the id, unless given.")
@click.option(
    "--participants", "-p", multiple=True, metavar="NAME", help="Who takes part; several with commas, or once for each."
)
@click.option("--context", default="", help="What somebody who joins has to know.")
def create(tool: CliContext, session_id: str, title: str | None, participants: tuple[str, ...], context: str) -> None:
    """Start a session. The same once more changes nothing."""
    names = [name.strip() for text in participants for name in text.split(",") if name.strip()]
    data = {"title": title or session_id, "participants": names, "context": context}
    response = tool.backend.send("create_session", data, session_id=session_id)
    tool.terminal.done(response["message"])
    tool.terminal.item(response["data"], SESSION_IN_FULL)


@command("list", SESSION)
@click.option("--status", type=click.Choice(["active", "paused", "completed"]), help="Only those.")
@limit_option()
def list_sessions(tool: CliContext, status: str | None, limit: int) -> None:
    """List sessions, the latest active first."""
    found = listed(tool, "list_sessions", {"filter": status}, limit=limit)
    nothing = f"No session is {status}." if status else "There are no sessions yet: session-cli create ID --title TITLE"
    tool.terminal.items(found, SESSION, nothing=nothing)


@command("show", SESSION_IN_FULL)
@session_argument()
def show(tool: CliContext, session_id: str) -> None:
    """Show a session with its status and its counts."""
    tool.terminal.item(_summary(tool, session_id), SESSION_IN_FULL)


@command("summary", BUNDLE)
@session_argument()
def summary(tool: CliContext, session_id: str) -> None:
    """Tell what one needs to go on with a session. That is open questions, things to do, decisions, tasks, what else is
    remembered, artifacts, and the end of the conversation."""
    bundle = tool.backend.send("resume_bundle", {"max_characters": PIECE_CHARACTERS}, session_id=session_id)["data"]
    if tool.terminal.as_json or not tool.terminal.is_terminal:
        tool.terminal.item({**bundle["session"], **bundle}, BUNDLE)
        return
    from cli.output.bundle_view import draw_bundle

    tool.terminal.pictures(draw_bundle(bundle))


@command("pause", SESSION_IN_FULL)
@session_argument()
def pause(tool: CliContext, session_id: str) -> None:
    """Pause a session. It takes no changes and hands out no tasks until it is resumed."""
    _change(tool, "pause_session", session_id)


@command("resume", SESSION_IN_FULL)
@session_argument()
def resume(tool: CliContext, session_id: str) -> None:
    """Make a paused or completed session active again."""
    _change(tool, "resume_session", session_id)


@command("complete", SESSION_IN_FULL)
@session_argument()
@click.option("--cancel-tasks", is_flag=True, help="Cancel its open tasks, instead of refusing while there are any.")
def complete(tool: CliContext, session_id: str, cancel_tasks: bool) -> None:
    """Complete a session. It stays readable, and takes no changes until it is resumed."""
    _change(tool, "complete_session", session_id, **({"open_tasks": "cancel"} if cancel_tasks else {}))


@command("delete", SESSION_IN_FULL)
@session_argument()
@yes_option()
def delete(tool: CliContext, session_id: str, yes: bool) -> None:
    """Delete a session with everything in it, for good."""
    session = _summary(tool, session_id)
    tool.terminal.confirm(
        f'Delete "{session["title"]}" ({session_id}) with {contents(session["stats"])}, for good?', yes=yes
    )
    tool.backend.send("delete_session", {"confirm": session_id}, session_id=session_id)
    tool.terminal.done(f'Deleted "{session["title"]}" with all that was in it.')
    if tool.terminal.as_json:
        tool.terminal.item(session, SESSION_IN_FULL)


def _summary(tool: CliContext, session_id: str) -> dict[str, Any]:
    summary: dict[str, Any] = tool.backend.send("get_session_summary", {}, session_id=session_id)["data"]
    return summary


def _change(tool: CliContext, name: str, session_id: str, **data: Any) -> None:
    response = tool.backend.send(name, data, session_id=session_id)
    tool.terminal.done(response["message"])
    if tool.terminal.as_json or not tool.terminal.is_terminal:
        tool.terminal.item(response["data"], SESSION_IN_FULL)
