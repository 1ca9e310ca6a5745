"""Reading artifacts: one with its content, and lists without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select

from models.commands import GetArtifact, ListArtifacts
from models.tables import ArtifactRow, SessionRow
from models.timestamps import format_utc
from sessions.answers import Page
from sessions.postgres.excerpts import json_excerpt, long_text
from sessions.postgres.paging import RowPosition, decode_cursor, fill
from sessions.postgres.reach import Reach, stream
from sessions.postgres.text_budget import fit


def get_artifact(connection: Connection, command: GetArtifact, *, reach: Reach) -> dict[str, Any]:
    """One artifact with its content. Raises NotFound."""
    room, offset = command.max_characters, command.offset
    content = json_excerpt(ArtifactRow.content, "content", room=room, offset=offset)
    statement = select(*artifact_columns(room), *content).where(
        ArtifactRow.session_id == reach.session_id, ArtifactRow.artifact_id == command.artifact_id
    )
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise reach.missing(connection, "artifact", command.artifact_id)
    item = artifact_item(row) | {"content": long_text(row, "content", offset=offset, paged=True)}
    if offset:
        item = {name: item[name] for name in ("artifact_id", "session_id", "name", "content")}
    return fit(item, room)


def list_artifacts(connection: Connection, command: ListArtifacts, *, reach: Reach) -> Page:
    """Artifacts without content, the latest first."""
    statement = (
        select(*artifact_columns(command.max_characters // 2), SessionRow.title.label("session_title"))
        .join(SessionRow, SessionRow.session_id == ArtifactRow.session_id)
        .where(reach.within(ArtifactRow.session_id), reach.during(command, ArtifactRow.created_at))
    )
    for name in ("type", "task_id"):
        if (wanted := getattr(command, name)) is not None:
            statement = statement.where(getattr(ArtifactRow, name) == wanted)
    if (before := decode_cursor(command.cursor, RowPosition)) is not None:
        statement = statement.where(ArtifactRow.position < before)
    rows = stream(connection, statement.order_by(ArtifactRow.position.desc()).limit(command.limit + 1))
    entries = ((row.position, artifact_item(row, reach=reach)) for row in rows)
    return fill(entries, limit=command.limit, room=command.max_characters)


def artifact_columns(room: int) -> Sequence[ColumnElement[Any]]:
    """What `artifact_item` needs."""
    plain = ("position", "artifact_id", "session_id", "name", "type", "format", "task_id", "created_by", "created_at")
    metadata = json_excerpt(ArtifactRow.metadata_, "metadata", room=room)
    return [*(getattr(ArtifactRow, name) for name in plain), *metadata]


def artifact_item(row: Row[Any], *, reach: Reach | None = None) -> dict[str, Any]:
    """An artifact as all reads show it."""
    metadata = long_text(row, "metadata")
    item = {
        "artifact_id": row.artifact_id,
        "session_id": row.session_id,
        "session_title": row.session_title if reach and reach.session_id is None else None,
        "name": row.name,
        "type": row.type,
        "format": row.format,
        "task_id": row.task_id,
        "metadata": None if metadata is None or metadata.is_empty else metadata,
        "created_by": row.created_by,
        "created_at": format_utc(row.created_at),
    }
    return {name: value for name, value in item.items() if value is not None}
