"""Search over all sessions, or in one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cli.backends.pages import listed
from cli.command_declaration import Body, command, limit_option
from cli.context import CliContext
from cli.output.output_schemas import CONVERSATION_HIT, MEMORY_HIT, OutputSchema

MEMORY_TYPES = (
    *("idea", "decision", "question", "action_item", "context", "preference", "fact", "risk", "note", "general"),
)


def _where() -> Callable[[Body], Body]:
    def add(body: Body) -> Body:
        for option in (
            click.option("--until", metavar="TIME", help="Only until then."),
            click.option("--since", metavar="TIME", help="Only since then: a time, a date, or an age such as 7d."),
            click.option("--session", "session_id", metavar="ID", help="Only in this session."),
        ):
            body = option(body)
        return body

    return add


@command("search-conversations", CONVERSATION_HIT)
@click.argument("query")
@_where()
@limit_option(20)
def search_conversations(
    tool: CliContext, query: str, session_id: str | None, limit: int, **period: str | None
) -> None:
    """Search what was said. The best hits come first: those with all words of the QUERY, then those with some. Words in
    "quotation marks" have to stand together, -word must not be there, OR stands between alternatives."""
    wanted = {"q": query, "in": ["conversations"], **period}
    _search(tool, wanted, CONVERSATION_HIT, session_id=session_id, limit=limit)


@command("search-memories", MEMORY_HIT)
@click.argument("query")
@click.option("--type", "kind", type=click.Choice(MEMORY_TYPES), help="Only memories of this type.")
@click.option("--tags", metavar="TAGS", help="Only memories with one of these tags, with commas.")
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
    """Search what is remembered. The QUERY is understood as by search-conversations."""
    wanted = {"q": query, "in": ["memories"], "type": kind, "tags": split_tags(tags), **period}
    _search(tool, wanted, MEMORY_HIT, session_id=session_id, limit=limit)


def split_tags(text: str | None) -> list[str]:
    """Tags that were given with commas."""
    return [tag.strip() for tag in (text or "").split(",") if tag.strip()]


def _search(
    tool: CliContext, wanted: dict[str, Any], shape: OutputSchema, *, session_id: str | None, limit: int
) -> None:
    found = listed(tool, "search", wanted, session_id=session_id, limit=limit)
    tool.terminal.items(found, shape, nothing="Nothing was found.")
