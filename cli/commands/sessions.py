"""Manages the life cycle of sessions: create, list, show, pause, resume, complete, delete."""

from __future__ import annotations

from typing import Any

import click

from cli.backends.pages import PIECE_CHARACTERS, listed
from cli.command_declaration import command, limit_option, session_argument, yes_option
from cli.context import CliContext
from cli.output.humanize import contents
from cli.output.table_columns import BUNDLE, SESSION, SESSION_IN_FULL


@command("create", SESSION_IN_FULL)
@session_argument()
@click.option("--title", help="Title.  [default: the ID]")
@click.option(
    "--participants", "-p", multiple=True, metavar="NAME", help="Participants, comma-separated; may be repeated."
)
@click.option("--context", default="", help="Background for participants who join.")
def create(tool: CliContext, session_id: str, title: str | None, participants: tuple[str, ...], context: str) -> None:
    """Create a session. Creating an identical session again has no effect."""
    names = [name.strip() for text in participants for name in text.split(",") if name.strip()]
    data = {"title": title or session_id, "participants": names, "context": context}
    response = tool.backend.send("create_session", data, session_id=session_id)
    tool.terminal.done(response["message"])
    tool.terminal.item(response["data"], SESSION_IN_FULL)


@command("list", SESSION)
@click.option("--status", type=click.Choice(["active", "paused", "completed"]), help="Filter by status.")
@click.option("--words", "q", metavar="WORDS", help="Filter by words of the title, context or ID.")
@click.option("--since", metavar="TIME", help="Only sessions active since a time, a date, or an age such as 7d.")
@click.option("--until", metavar="TIME", help="Only sessions last active up to this time.")
@limit_option()
def list_sessions(tool: CliContext, status: str | None, limit: int, **wanted: str | None) -> None:
    """List sessions, most recently active first."""
    found = listed(tool, "list_sessions", {"filter": status, **wanted}, limit=limit)
    nothing = "No sessions yet. Create one: session-cli create ID --title TITLE"
    if status or any(wanted.values()):
        nothing = f"No {status} sessions." if status else "No sessions found."
    tool.terminal.items(found, SESSION, nothing=nothing)


@command("show", SESSION_IN_FULL)
@session_argument()
def show(tool: CliContext, session_id: str) -> None:
    """Show a session's status and counts."""
    tool.terminal.item(_summary(tool, session_id), SESSION_IN_FULL)


@command("summary", BUNDLE)
@session_argument()
def summary(tool: CliContext, session_id: str) -> None:
    """Summarize a session for resuming work. Shows open questions, action items, decisions, tasks, other memories,
    artifacts, and the latest conversation."""
    bundle = tool.backend.send("resume_bundle", {"max_characters": PIECE_CHARACTERS}, session_id=session_id)["data"]
    if tool.terminal.as_json or not tool.terminal.is_terminal:
        tool.terminal.item({**bundle["session"], **bundle}, BUNDLE)
        return
    from cli.output.bundle_view import draw_bundle

    tool.terminal.pictures(draw_bundle(bundle))


@command("pause", SESSION_IN_FULL)
@session_argument()
def pause(tool: CliContext, session_id: str) -> None:
    """Pause a session. Changes are rejected and its tasks are held until it is resumed."""
    _change(tool, "pause_session", session_id)


@command("resume", SESSION_IN_FULL)
@session_argument()
def resume(tool: CliContext, session_id: str) -> None:
    """Resume a paused or completed session."""
    _change(tool, "resume_session", session_id)


@command("complete", SESSION_IN_FULL)
@session_argument()
@click.option("--cancel-tasks", is_flag=True, help="Cancel open tasks instead of failing.")
def complete(tool: CliContext, session_id: str, cancel_tasks: bool) -> None:
    """Complete a session. It stays readable; changes are rejected until it is resumed."""
    _change(tool, "complete_session", session_id, **({"open_tasks": "cancel"} if cancel_tasks else {}))


@command("delete", SESSION_IN_FULL)
@session_argument()
@yes_option()
def delete(tool: CliContext, session_id: str, yes: bool) -> None:
    """Delete a session and its contents permanently."""
    session = _summary(tool, session_id)
    tool.terminal.confirm(
        f'Permanently delete "{session["title"]}" ({session_id}) with {contents(session["stats"])}?', yes=yes
    )
    tool.backend.send("delete_session", {"confirm": session_id}, session_id=session_id)
    tool.terminal.done(f'Deleted "{session["title"]}" and its contents.')
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
