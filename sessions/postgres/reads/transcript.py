"""Reads the conversation of a session from Postgres."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, case, func, select, tuple_

from models.commands.definitions import ReadConversation
from models.tables import CHUNKS, said_at
from sessions.postgres.reads.partial_values import json_excerpt, text_excerpt
from sessions.postgres.reads.read_scope import missing_in, stream
from sessions.reads.pagination import decode_cursor
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import Page
from sessions.reads.transcript import Place, page_of_chunks

ORDER = (said_at(CHUNKS.c), CHUNKS.c.position)


def read_conversation(connection: Connection, command: ReadConversation, *, read_scope: ReadScope) -> Page:
    """Return chunks in order, from the cursor, the chunk or the beginning on. A chunk that does not fit is truncated,
    and `next_cursor` continues within it. Raises NotFound, or Invalid for an invalid cursor."""
    start, previous = decode_cursor(command.cursor, Place), None
    if start is None and command.chunk_id is not None:
        start = _find(connection, command, read_scope)
        previous = _before(connection, start, read_scope)
    inside = start.offset if start else command.offset
    statement = _chunks(read_scope, start, inside, room=command.max_characters).limit(command.limit + 1)
    chunks = (row._mapping for row in stream(connection, statement))
    return page_of_chunks(chunks, limit=command.limit, max_characters=command.max_characters, previous=previous)


class Start(NamedTuple):
    """A chunk to read from, and the number of chunks to read."""

    chunk_id: str
    chunks: int


def find_start(connection: Connection, *, session_id: str, before: str | None, count: int, size: int) -> Start | None:
    """Return where to start for the last chunks before the chunk `before`, or the last of all: at most `count`, of at
    most `size` bytes together, but at least one. None if there are none. Raises NotFound."""
    statement = select(CHUNKS.c.chunk_id, func.octet_length(CHUNKS.c.content).label("size"))
    statement = statement.where(CHUNKS.c.session_id == session_id)
    if before is not None:
        scope = ReadScope(session_id=session_id, session_glob=None, now=datetime.now(UTC))
        end = _find(connection, ReadConversation(chunk_id=before), scope)
        statement = statement.where(tuple_(*ORDER) < (end.said_at, end.position))
    start, left = None, size
    rows = stream(connection, statement.order_by(*(column.desc() for column in ORDER)).limit(count))
    for number, row in enumerate(rows, 1):
        left -= row.size
        if start is not None and left < 0:
            break
        start = Start(row.chunk_id, number)
    return start


def _find(connection: Connection, command: ReadConversation, read_scope: ReadScope) -> Place:
    statement = select(said_at(CHUNKS.c).label("said_at"), CHUNKS.c.position).where(
        CHUNKS.c.session_id == read_scope.session_id, CHUNKS.c.chunk_id == command.chunk_id
    )
    found = connection.execute(statement).one_or_none()
    if found is None:
        raise missing_in(connection, read_scope, "chunk", command.chunk_id or "")
    return Place(said_at=found.said_at, position=found.position, offset=command.offset)


def _before(connection: Connection, start: Place, read_scope: ReadScope) -> str | None:
    earlier = (CHUNKS.c.session_id == read_scope.session_id, tuple_(*ORDER) < (start.said_at, start.position))
    latest = select(CHUNKS.c.chunk_id).where(*earlier).order_by(*(column.desc() for column in ORDER)).limit(1)
    return connection.execute(latest).scalar_one_or_none()


def _chunks(read_scope: ReadScope, start: Place | None, inside: int, *, room: int) -> Select[Any]:
    number = func.row_number().over(order_by=ORDER)
    offset = case((number == 1, inside), else_=0)
    plain = ("position", "chunk_id", "format", "start_at", "end_at", "participants", "created_by", "created_at")
    statement = (
        select(
            *(CHUNKS.c[name] for name in plain),
            said_at(CHUNKS.c).label("said_at"),
            offset.label("offset"),
            *text_excerpt(CHUNKS.c.content, "content", room=room, offset=offset),
            *json_excerpt(CHUNKS.c.metadata, "metadata", room=room),
        )
        .where(CHUNKS.c.session_id == read_scope.session_id)
        .order_by(*ORDER)
    )
    return statement if start is None else statement.where(tuple_(*ORDER) >= (start.said_at, start.position))
