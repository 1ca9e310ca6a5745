"""Exports a session from Postgres as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Row, cast, select

from models.tables import ARTIFACTS, CHUNKS, MEMORIES, SESSIONS, TASKS, said_at
from sessions.postgres.reads.partial_values import Verbatim
from sessions.postgres.reads.read_scope import require_session, stream
from sessions.reads.markdown_rendering import write_markdown


def export_markdown(connection: Connection, session_id: str) -> Iterator[str]:
    """Return the document in pieces. Raises NotFound before the first piece."""
    require_session(connection, session_id)
    session = connection.execute(select(SESSIONS).where(SESSIONS.c.session_id == session_id)).one()

    def rows(statement: Any, table: Any, *order: Any) -> Iterator[Row[Any]]:
        return stream(connection, statement.where(table.session_id == session_id).order_by(*order, table.position))

    content = cast(MEMORIES.c.content, Verbatim).label("content")
    memories = select(content, MEMORIES.c.type, MEMORIES.c.status, MEMORIES.c.due, MEMORIES.c.tags)
    memories = memories.where(MEMORIES.c.session_id == session_id)
    memories = memories.order_by(MEMORIES.c.created_at, MEMORIES.c.key.collate("C"))
    output = cast(TASKS.c.output, Verbatim).label("output")
    tasks = select(TASKS.c.title, TASKS.c.description, TASKS.c.status, TASKS.c.agent_name, TASKS.c.error, output)
    content = cast(ARTIFACTS.c.content, Verbatim).label("content")
    artifacts = select(ARTIFACTS.c.name, ARTIFACTS.c.type, ARTIFACTS.c.format, ARTIFACTS.c.revision, content)
    chunks = select(CHUNKS.c.content, CHUNKS.c.format, CHUNKS.c.participants, CHUNKS.c.start_at, CHUNKS.c.created_at)
    return write_markdown(
        session,
        memories=lambda kind: stream(connection, memories.where(MEMORIES.c.type == kind)),
        tasks=rows(tasks, TASKS.c),
        artifacts=rows(artifacts, ARTIFACTS.c),
        chunks=rows(chunks, CHUNKS.c, said_at(CHUNKS.c)),
    )
