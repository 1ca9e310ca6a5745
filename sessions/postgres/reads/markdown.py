"""Exports a session from Postgres as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Row, cast, select

from models.tables import ArtifactRow, ChunkRow, MemoryRow, SessionRow, TaskRow
from sessions.postgres.reads.partial_values import Verbatim
from sessions.postgres.reads.read_scope import require_session, stream
from sessions.reads.markdown_rendering import write_markdown


def export_markdown(connection: Connection, session_id: str) -> Iterator[str]:
    """Return the document in pieces. Raises NotFound before the first piece."""
    require_session(connection, session_id)
    session = connection.execute(select(SessionRow.__table__).where(SessionRow.session_id == session_id)).one()

    def rows(statement: Any, table: Any, *order: Any) -> Iterator[Row[Any]]:
        return stream(connection, statement.where(table.session_id == session_id).order_by(*order, table.position))

    content = cast(MemoryRow.content, Verbatim).label("content")
    memories = select(content, MemoryRow.type, MemoryRow.status, MemoryRow.due, MemoryRow.tags)
    memories = memories.where(MemoryRow.session_id == session_id)
    memories = memories.order_by(MemoryRow.created_at, MemoryRow.key.collate("C"))
    output = cast(TaskRow.output, Verbatim).label("output")
    tasks = select(TaskRow.title, TaskRow.description, TaskRow.status, TaskRow.agent_name, TaskRow.error, output)
    content = cast(ArtifactRow.content, Verbatim).label("content")
    artifacts = select(ArtifactRow.name, ArtifactRow.type, ArtifactRow.format, ArtifactRow.revision, content)
    chunks = select(ChunkRow.content, ChunkRow.format, ChunkRow.participants, ChunkRow.start_at, ChunkRow.created_at)
    return write_markdown(
        session,
        memories=lambda kind: stream(connection, memories.where(MemoryRow.type == kind)),
        tasks=rows(tasks, TaskRow),
        artifacts=rows(artifacts, ArtifactRow),
        chunks=rows(chunks, ChunkRow, ChunkRow.said_at),
    )
