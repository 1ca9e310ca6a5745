"""Reads of memories: one at any revision, and lists by session, type, tags, status and time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Connection, Text, cast, select, tuple_

from models.commands.definitions import ListMemories, QueryMemories, RetrieveMemory
from models.tables import MemoryRevisionRow, MemoryRow, SessionRow
from sessions.postgres.reads.partial_values import json_excerpt
from sessions.postgres.reads.read_scope import during, missing_in, stream, within
from sessions.reads.pagination import decode_cursor, fill
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import Page
from sessions.reads.serializers import memory_item
from sessions.reads.truncation import fit


def retrieve_memory(connection: Connection, command: RetrieveMemory, *, read_scope: ReadScope) -> dict[str, Any]:
    """Return a memory. Raises NotFound."""
    for table in (MemoryRow, MemoryRevisionRow):
        columns = memory_columns(table, room=command.max_characters, offset=command.offset)
        statement = select(*columns).where(table.session_id == read_scope.session_id, table.key == command.key)
        if command.revision is not None:
            statement = statement.where(table.revision == command.revision)
        if row := connection.execute(statement).first():
            return fit(memory_item(row._mapping, offset=command.offset), command.max_characters)
        if command.revision is None:
            break
    message = f"{command.key!r} does not have revision {command.revision}." if command.revision else ""
    raise missing_in(connection, read_scope, "memory", command.key, message=message)


def list_memories(connection: Connection, command: ListMemories | QueryMemories, *, read_scope: ReadScope) -> Page:
    """List memories, the latest first; those of the same time in descending order of session and key."""
    columns = memory_columns(MemoryRow, room=command.max_characters // 2)
    statement = select(*columns, SessionRow.title.label("session_title")).join(
        SessionRow, SessionRow.session_id == MemoryRow.session_id
    )
    statement = statement.where(within(read_scope, MemoryRow.session_id), *_filters(command, read_scope))
    order = (MemoryRow.updated_at, MemoryRow.session_id, MemoryRow.key)
    if after := decode_cursor(command.cursor, tuple[datetime, str, str]):
        statement = statement.where(tuple_(*order) < after)
    rows = stream(connection, statement.order_by(*(column.desc() for column in order)).limit(command.limit + 1))
    entries = (
        ((row.updated_at, row.session_id, row.key), memory_item(row._mapping, titled=read_scope.session_id is None))
        for row in rows
    )
    return fill(entries, limit=command.limit, room=command.max_characters)


def memory_columns(
    table: type[MemoryRow | MemoryRevisionRow], *, room: int, offset: int = 0
) -> Sequence[ColumnElement[Any]]:
    """Return the columns for `sessions.reads.serializers.memory_item`."""
    plain = ("session_id", "key", "revision", "type", "tags", "status", "chunk_id", "created_at", "updated_at")
    content = json_excerpt(table.content, "content", room=room, offset=offset)
    return [*(getattr(table, name) for name in plain), *content]


def _filters(command: ListMemories | QueryMemories, read_scope: ReadScope) -> list[ColumnElement[bool]]:
    if isinstance(command, ListMemories):
        return []
    filters = [during(read_scope, command, MemoryRow.updated_at)]
    if command.type is not None:
        filters.append(MemoryRow.type == command.type)
    if command.tags:
        filters.append(MemoryRow.tags.bool_op("&&")(cast(command.tags, ARRAY(Text))))
    if command.status is not None:
        filters.append(MemoryRow.status == command.status)
    return filters
