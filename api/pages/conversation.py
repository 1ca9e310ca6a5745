"""A session's conversation: the latest part of it, earlier parts on demand, and any place that a search has found."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from api.pages.rendering import render
from api.pages.session_page import SessionPages
from api.pages.visitors import Visitor
from models import field_types as v
from models.commands.definitions import ReadConversation
from models.field_types import MAX_CHARACTERS
from relay.http.query_parameters import decode_parameters
from sessions.postgres.reads.read_commands import find_start, page
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import Page

PAGE_CHUNKS = 30
PAGE_BYTES = 40_000
"""A page of earlier chunks is filled up to this, so that all of them fit into one read."""
CONTEXT_CHARACTERS = 600
"""Shown before a place that a search has found."""
BEYOND = 1_000_000_000
"""An offset behind the end of every chunk: of a chunk that the reader has, nothing is read again."""


class Place(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Query parameters: at most one of the places below. Without any: the latest part."""

    session_id: v.Id
    chunk_id: v.Id | None = None
    """A chunk to begin with, at `offset`."""
    offset: v.Offset = 0
    before: v.Id | None = None
    """A chunk to end before."""
    after: v.Id | None = None
    """A chunk to begin after."""
    cursor: Annotated[v.Cursor, Meta(description="From the page before")] | None = None


class Part(NamedTuple):
    """A part of the conversation."""

    page: Page
    has_earlier: bool = False


class Conversation:
    """The page."""

    def __init__(self, pages: SessionPages) -> None:
        self._pages = pages

    async def show(self, request: Request, visitor: Visitor) -> Response:
        """Show a part of the conversation. A page that shows another part takes the chunks out of it."""
        place = decode_parameters(request.query_params, Place, **request.path_params)
        context, part = await self._pages.read(request, visitor, partial(_read_part, place=place))
        return render("conversation.html", **context, **_describe(part, place))


def _describe(part: Part, place: Place) -> dict[str, Any]:
    chunks, next_cursor = part.page.items, part.page.next_cursor
    is_latest = not (place.chunk_id or place.before or place.cursor or (next_cursor and not place.after))
    return {
        "chunks": chunks,
        "earlier": chunks[0]["chunk_id"] if part.has_earlier and chunks else None,
        "next_cursor": None if place.after else next_cursor,
        "is_latest": is_latest,
        "has_later": bool(place.after and next_cursor),
        "found": place.chunk_id,
        "lead": min(place.offset, CONTEXT_CHARACTERS),
    }


def _read_part(connection: Connection, read_scope: ReadScope, *, place: Place) -> Part:
    if place.cursor is not None:
        return Part(_read(connection, read_scope, cursor=place.cursor))
    if place.chunk_id is not None:
        offset = max(place.offset - CONTEXT_CHARACTERS, 0)
        found = _read(connection, read_scope, chunk_id=place.chunk_id, offset=offset)
        return Part(found, has_earlier="previous_chunk_id" in found.items[0])
    if place.after is not None:
        known = {"chunk_id": place.after, "offset": BEYOND}
        later = _read(connection, read_scope, **known, limit=PAGE_CHUNKS + 1)
        return Part(Page(items=later.items[1:], next_cursor=later.next_cursor))
    session_id = read_scope.require_session()
    start = find_start(connection, session_id=session_id, before=place.before, count=PAGE_CHUNKS, size=PAGE_BYTES)
    if start is None:
        return Part(Page(items=[]))
    found = _read(connection, read_scope, chunk_id=start.chunk_id, limit=start.chunks)
    is_whole = len(found.items) == start.chunks and "next_offset" not in found.items[-1]
    cursor = None if is_whole else found.next_cursor
    return Part(Page(items=found.items, next_cursor=cursor), has_earlier="previous_chunk_id" in found.items[0])


def _read(connection: Connection, read_scope: ReadScope, *, limit: int = PAGE_CHUNKS, **place: Any) -> Page:
    command = ReadConversation(**place, limit=limit, max_characters=MAX_CHARACTERS)
    return page(connection, command, read_scope)
