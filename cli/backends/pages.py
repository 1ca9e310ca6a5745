"""Pages through lists with cursors, yielding each page before fetching the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cli.context import CliContext
    from sessions.reads.results import Page

LARGEST_PAGE = 500
PIECE_CHARACTERS = 90_000
"""The maximum that one read returns."""
Fetch = Callable[[int, "str | None"], "Page"]
Items = list[dict[str, Any]]


def listed(
    tool: CliContext,
    command: str,
    wanted: dict[str, Any],
    *,
    session_id: str | None = None,
    limit: int,
    on_page: Callable[[Page], None] = lambda _: None,
) -> Iterator[Items]:
    """Page through a list command. Empty parameters are omitted. Calls `on_page` with each page."""
    parameters = {name: value for name, value in wanted.items() if value}

    def fetch(size: int, cursor: str | None) -> Page:
        page = {"limit": size, "max_characters": PIECE_CHARACTERS} | ({"cursor": cursor} if cursor else {})
        found = tool.backend.page(command, {**parameters, **page}, session_id=session_id)
        on_page(found)
        return found

    return pages(fetch, limit=limit, on_more=tool.terminal.note_after)


def pages(fetch: Fetch, *, limit: int, on_more: Callable[[str], None]) -> Iterator[Items]:
    """Page through a list up to `limit` items, 0 for all. Calls `on_more` with a message if there are more; the
    message belongs after the items."""
    left = limit
    cursor: str | None = None
    while True:
        page = fetch(min(left, LARGEST_PAGE) if limit else LARGEST_PAGE, cursor)
        yield page.items
        cursor = page.next_cursor
        left -= len(page.items)
        if cursor is None:
            return
        if limit and left <= 0:
            on_more(f"Showing the first {limit:,}. Use --limit 0 to show all.")
            return
