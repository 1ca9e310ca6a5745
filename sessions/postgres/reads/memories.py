"""Reads of memories: one at any revision, and lists by session, type, tags, status and time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Connection, Text, case, cast, func, select, tuple_

from models.commands.definitions import ListMemories, QueryMemories, RetrieveMemory
from models.due import DATE_LENGTH, NEVER, DueBound
from models.field_types import OPEN_TYPES
from models.tables import MEMORIES, MEMORY_REVISIONS, SESSIONS
from sessions.postgres.reads.partial_values import json_excerpt
from sessions.postgres.reads.read_scope import during, missing_in, stream, within
from sessions.reads.pagination import decode_cursor, fill
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import Page
from sessions.reads.serializers import memory_item
from sessions.reads.truncation import fit


def retrieve_memory(connection: Connection, command: RetrieveMemory, *, read_scope: ReadScope) -> dict[str, Any]:
    """Return a memory. Raises NotFound."""
    for table in (MEMORIES.c, MEMORY_REVISIONS.c):
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
    """List memories, the latest first; those of the same time in descending order of session and key. Or what is due
    first, first; what is due at the same time, or not at all, the oldest first."""
    is_by_due = isinstance(command, QueryMemories) and command.is_by_due
    shape: Any = tuple[str, datetime, str, str] if is_by_due else tuple[datetime, str, str]
    due_order = func.coalesce(MEMORIES.c.due, NEVER)
    order: list[Any] = [MEMORIES.c.updated_at, MEMORIES.c.session_id, MEMORIES.c.key]
    names = ["updated_at", "session_id", "key"]
    if is_by_due:
        order, names = [due_order, *order], ["due_order", *names]

    def sorted_by(columns: list[Any]) -> list[Any]:
        return columns if is_by_due else [column.desc() for column in columns]

    statement = select(MEMORIES, due_order.label("due_order"), SESSIONS.c.title.label("session_title")).join(
        SESSIONS, SESSIONS.c.session_id == MEMORIES.c.session_id
    )
    statement = statement.where(within(read_scope, MEMORIES.c.session_id), *_filters(command, read_scope))
    if after := decode_cursor(command.cursor, shape):
        statement = statement.where(tuple_(*order) > after if is_by_due else tuple_(*order) < after)
    # Chosen first, since to cut the contents of all memories before they are sorted would be slow.
    chosen = statement.order_by(*sorted_by(order)).limit(command.limit + 1).subquery()
    columns = memory_columns(chosen.c, room=command.max_characters // 2)
    found = select(*columns, chosen.c.session_title).order_by(*sorted_by([chosen.c[name] for name in names]))
    entries = (
        (
            (*([row.due or NEVER] if is_by_due else []), row.updated_at, row.session_id, row.key),
            memory_item(row._mapping, titled=read_scope.session_id is None),
        )
        for row in stream(connection, found)
    )
    return fill(entries, limit=command.limit, room=command.max_characters)


def memory_columns(table: Any, *, room: int, offset: int = 0) -> Sequence[ColumnElement[Any]]:
    """Return the columns for `sessions.reads.serializers.memory_item`."""
    plain = ("session_id", "key", "revision", "type", "tags", "status", "due", "chunk_id", "created_at", "updated_at")
    content = json_excerpt(table.content, "content", room=room, offset=offset)
    return [*(table[name] for name in plain), *content]


def _filters(command: ListMemories | QueryMemories, read_scope: ReadScope) -> list[ColumnElement[bool]]:
    if isinstance(command, ListMemories):
        return []
    filters = [during(read_scope, command, MEMORIES.c.updated_at)]
    if command.type is not None:
        filters.append(MEMORIES.c.type == command.type)
    if command.tags:
        filters.append(MEMORIES.c.tags.bool_op("&&")(cast(command.tags, ARRAY(Text))))
    if command.status is not None:
        filters.append(MEMORIES.c.status == command.status)
    if command.status == "open" and command.type is None:
        filters.append(MEMORIES.c.type.in_(OPEN_TYPES))
    if read_scope.session_id is None and not command.include_completed:
        filters.append(SESSIONS.c.status != "completed")
    return [*filters, *_is_due(*command.due_period(read_scope.now))]


def _is_due(after: DueBound | None, before: DueBound | None) -> list[ColumnElement[bool]]:
    """Return the conditions of `models.due.is_due`, with limits for both dates and times that the index can use."""
    due, is_date = MEMORIES.c.due, func.length(MEMORIES.c.due) == DATE_LENGTH
    filters: list[ColumnElement[bool]] = []
    if after is not None:
        filters += [due >= min(after), case((is_date, due >= after.day), else_=due >= after.moment)]
    if before is not None:
        filters += [due <= max(before), case((is_date, due <= before.day), else_=due < before.moment)]
    return filters
