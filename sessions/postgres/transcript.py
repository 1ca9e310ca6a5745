"""Reading the conversation of a session, chunk after chunk. Long chunks go on in the next page."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import Connection, Row, Select, case, func, select

from models.tables import ChunkRow
from models.timestamps import format_utc
from sessions.answers import Page
from sessions.postgres.excerpts import json_excerpt, long_text, text_excerpt
from sessions.postgres.paging import RowPosition, decode_cursor, encode_cursor
from sessions.postgres.reach import require_session, stream
from sessions.postgres.text_budget import fit, measure

SMALLEST_SHARE = 0.1
"""Of a page: with less room left, a chunk that does not fit waits for the next page."""


class Place(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Where to read on."""

    position: RowPosition
    offset: Annotated[int, Meta(ge=0, lt=2**31)]


def read_transcript(
    connection: Connection, *, session_id: str, limit: int, cursor: str | None, max_characters: int, offset: int
) -> Page:
    """Chunks in order. A chunk that does not fit is cut, and `next_cursor` goes on within it; `offset` begins within
    the first one. Raises NotFound, or Invalid for the cursor."""
    require_session(connection, session_id)
    start = decode_cursor(cursor, Place) or Place(position=0, offset=0)
    chunks = _chunks(session_id, start.position, offset or start.offset, room=max_characters)
    items: list[dict[str, Any]] = []
    left = max_characters
    for row in stream(connection, chunks.limit(limit + 1)):
        item = fit(_item(row), left)
        size = measure(item) + 1
        crowded = bool(items) and (size > left or ("next_offset" in item and left < max_characters * SMALLEST_SHARE))
        if crowded or len(items) == limit:
            next_cursor = encode_cursor(Place(position=row.position, offset=0))
            return Page(items=items, next_cursor=next_cursor, truncated=crowded)
        items.append(item)
        left -= size
        if "next_offset" in item:
            next_cursor = encode_cursor(Place(position=row.position, offset=item["next_offset"]))
            return Page(items=items, next_cursor=next_cursor, truncated=True)
    return Page(items=items)


def _chunks(session_id: str, start: int, inside: int, *, room: int) -> Select[Any]:
    number = func.row_number().over(order_by=ChunkRow.position)
    offset = case((number == 1, inside), else_=0)
    plain = ("position", "chunk_id", "format", "start_at", "end_at", "participants", "created_by", "created_at")
    return (
        select(
            *(getattr(ChunkRow, name) for name in plain),
            offset.label("offset"),
            *text_excerpt(ChunkRow.content, "content", room=room, offset=offset),
            *json_excerpt(ChunkRow.metadata_, "metadata", room=room),
        )
        .where(ChunkRow.session_id == session_id, ChunkRow.position >= start)
        .order_by(ChunkRow.position)
    )


def _item(row: Row[Any]) -> dict[str, Any]:
    content = long_text(row, "content", offset=row.offset, paged=True)
    if row.offset:
        return {"chunk_id": row.chunk_id, "content": content, "offset": row.offset}
    metadata = long_text(row, "metadata")
    item = {
        "chunk_id": row.chunk_id,
        "content": content,
        "format": row.format,
        "participants": row.participants,
        "start_at": row.start_at and format_utc(row.start_at),
        "end_at": row.end_at and format_utc(row.end_at),
        "metadata": None if metadata is None or metadata.is_empty else metadata,
        "created_by": row.created_by,
        "created_at": format_utc(row.created_at),
    }
    return {name: value for name, value in item.items() if value is not None}
