"""Searches conversations and memories, in all sessions or in one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from cli.backends.pages import listed
from cli.command_declaration import Body, argument, command, limit_option, session_option
from cli.context import CliContext
from cli.output.humanize import count
from cli.output.table_columns import CONVERSATION_HIT, HIT, MEMORY_HIT, OutputSchema

if TYPE_CHECKING:
    from sessions.reads.results import Page

MEMORY_TYPES = (
    *("idea", "decision", "question", "action_item", "context", "preference", "fact", "risk", "note", "general"),
)


def _where() -> Callable[[Body], Body]:
    def add(body: Body) -> Body:
        for option in (
            click.option("--until", metavar="TIME", help="Only results up to this time."),
            click.option("--since", metavar="TIME", help="Only results since a time, a date, or an age such as 7d."),
            session_option("Search only this session."),
        ):
            body = option(body)
        return body

    return add


AREAS = ("conversations", "memories", "artifacts", "tasks", "sessions")


@command("search", HIT)
@argument("query")
@click.option("--in", "areas", multiple=True, type=click.Choice(AREAS), help="Only this area; may be repeated.")
@click.option("--type", "kind", metavar="TYPE", help="Only memories or artifacts of this type.")
@click.option("--tags", metavar="TAGS", help="Only memories with any of these tags, comma-separated.")
@_where()
@limit_option(20)
def search(
    tool: CliContext,
    query: str,
    areas: tuple[str, ...],
    kind: str | None,
    tags: str | None,
    session_id: str | None,
    limit: int,
    **period: str | None,
) -> None:
    """Search everything. That is conversations, memories, artifacts, tasks and sessions, by words and, on a relay, by
    meaning. QUERY has the syntax of search-conversations."""
    wanted = {"q": query, "in": list(areas), "type": kind, "tags": split_tags(tags), **period}
    _search(tool, wanted, HIT, session_id=session_id, limit=limit)


@command("search-conversations", CONVERSATION_HIT)
@argument("query")
@_where()
@limit_option(20)
def search_conversations(
    tool: CliContext, query: str, session_id: str | None, limit: int, **period: str | None
) -> None:
    """Search conversations. Results with all words of QUERY come first, then those with some. "Quoted words" must be
    adjacent, -word excludes a word, OR separates alternatives."""
    wanted = {"q": query, "in": ["conversations"], **period}
    _search(tool, wanted, CONVERSATION_HIT, session_id=session_id, limit=limit)


@command("search-memories", MEMORY_HIT)
@argument("query")
@click.option("--type", "kind", type=click.Choice(MEMORY_TYPES), help="Filter by type.")
@click.option("--tags", metavar="TAGS", help="Filter by tags: any of these, comma-separated.")
@_where()
@limit_option(20)
def search_memories(
    tool: CliContext,
    query: str,
    kind: str | None,
    tags: str | None,
    session_id: str | None,
    limit: int,
    **period: str | None,
) -> None:
    """Search memories. QUERY has the syntax of search-conversations."""
    wanted = {"q": query, "in": ["memories"], "type": kind, "tags": split_tags(tags), **period}
    _search(tool, wanted, MEMORY_HIT, session_id=session_id, limit=limit)


def split_tags(text: str | None) -> list[str]:
    """Split comma-separated tags."""
    return [tag.strip() for tag in (text or "").split(",") if tag.strip()]


def _search(
    tool: CliContext, wanted: dict[str, Any], shape: OutputSchema, *, session_id: str | None, limit: int
) -> None:
    notes: list[str] = []

    def note(page: Page) -> None:
        """Say what the search cannot find yet, once, and after the results."""
        if not notes and (text := describe_limits(page)):
            notes.append(text)
            tool.terminal.note_after(text)

    found = listed(tool, "search", wanted, session_id=session_id, limit=limit, on_page=note)
    tool.terminal.items(found, shape, nothing="No results.")


def describe_limits(page: Page) -> str:
    """Describe what a search could not find yet; an empty text if it has compared all meanings."""
    if not page.notes.get("meaning_ready", True):
        return "Searched by words alone: the search by meaning is not ready yet. Try again in some seconds."
    waiting = page.notes.get("not_embedded", 0)
    if waiting and not page.items:
        return f"{count(waiting, 'new text')} can be found by words only yet. Try again in some seconds."
    return ""
