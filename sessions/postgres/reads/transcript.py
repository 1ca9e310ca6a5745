"""Reads the conversation of a session from Postgres."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, case, func, select, tuple_

from models.tables import ChunkRow
from sessions.postgres.reads.partial_values import json_excerpt, text_excerpt
from sessions.postgres.reads.read_scope import require_session, stream
from sessions.reads.pagination import decode_cursor
from sessions.reads.results import Page
from sessions.reads.transcript import Place, page_of_chunks


def read_transcript(
    connection: Connection, *, session_id: str, limit: int, cursor: str | None, max_characters: int, offset: int
) -> Page:
    """Return chunks in order. A chunk that does not fit is truncated, and `next_cursor` continues within it; `offset`
    starts within the first one. Raises NotFound, or Invalid for an invalid cursor."""
    require_session(connection, session_id)
    start = decode_cursor(cursor, Place)
    inside = offset or (start.offset if start else 0)
    statement = _chunks(session_id, start, inside, room=max_characters).limit(limit + 1)
    chunks = (row._mapping for row in stream(connection, statement))
    return page_of_chunks(chunks, limit=limit, max_characters=max_characters)


def _chunks(session_id: str, start: Place | None, inside: int, *, room: int) -> Select[Any]:
    order = (ChunkRow.said_at, ChunkRow.position)
    number = func.row_number().over(order_by=order)
    offset = case((number == 1, inside), else_=0)
    plain = ("position", "chunk_id", "format", "start_at", "end_at", "participants", "created_by", "created_at")
    statement = (
        select(
            *(getattr(ChunkRow, name) for name in plain),
            ChunkRow.said_at.label("said_at"),
            offset.label("offset"),
            *text_excerpt(ChunkRow.content, "content", room=room, offset=offset),
            *json_excerpt(ChunkRow.metadata_, "metadata", room=room),
        )
        .where(ChunkRow.session_id == session_id)
        .order_by(*order)
    )
    return statement if start is None else statement.where(tuple_(*order) >= (start.said_at, start.position))
