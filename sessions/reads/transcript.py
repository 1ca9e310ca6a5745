"""Pages of a conversation, chunk by chunk, for all stores. A long chunk continues on the next page."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sessions.reads.pagination import RowPosition, encode_cursor
from sessions.reads.partial_values import Columns
from sessions.reads.results import Page
from sessions.reads.serializers import chunk_item
from sessions.reads.truncation import fit, measure

SMALLEST_SHARE = 0.1
"""Fraction of a page: with less room left, a chunk that does not fit moves to the next page."""


class Place(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The position to continue from: a chunk by time and position, and an offset in its content."""

    said_at: datetime
    position: RowPosition
    offset: Annotated[int, Meta(ge=0, lt=2**31)]


def page_of_chunks(chunks: Iterable[Columns], *, limit: int, max_characters: int, previous: str | None = None) -> Page:
    """A page of chunks. They are passed in order, each with its `said_at`, its `position` and the `offset` at which it
    begins, one more than the limit if there are more. A chunk that does not fit is cut, and `next_cursor` continues
    within it. The first chunk names the `previous` one, if known."""
    items: list[dict[str, Any]] = []
    named = {} if previous is None else {"previous_chunk_id": previous}
    left = max_characters
    for chunk in chunks:
        item = fit(chunk_item(chunk, offset=chunk["offset"]) | ({} if items else named), left)
        size = measure(item) + 1
        crowded = bool(items) and (size > left or ("next_offset" in item and left < max_characters * SMALLEST_SHARE))
        if crowded or len(items) == limit:
            next_cursor = encode_cursor(_place(chunk, 0))
            return Page(items=items, next_cursor=next_cursor, truncated=crowded)
        items.append(item)
        left -= size
        if "next_offset" in item:
            next_cursor = encode_cursor(_place(chunk, item["next_offset"]))
            return Page(items=items, next_cursor=next_cursor, truncated=True)
    return Page(items=items)


def _place(chunk: Columns, offset: int) -> Place:
    return Place(said_at=chunk["said_at"], position=chunk["position"], offset=offset)
