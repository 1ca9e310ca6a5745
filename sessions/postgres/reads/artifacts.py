"""Reads of artifacts: one with its content, and lists without content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, select

from models.commands.definitions import GetArtifact, ListArtifacts
from models.tables import ArtifactRow, SessionRow
from sessions.postgres.reads.partial_values import json_excerpt
from sessions.postgres.reads.read_scope import during, missing_in, stream, within
from sessions.reads.pagination import RowPosition, decode_cursor, fill
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import Page
from sessions.reads.serializers import artifact_item, whole_artifact


def get_artifact(connection: Connection, command: GetArtifact, *, read_scope: ReadScope) -> dict[str, Any]:
    """Return an artifact with its content. Raises NotFound."""
    room, offset = command.max_characters, command.offset
    content = json_excerpt(ArtifactRow.content, "content", room=room, offset=offset)
    statement = select(*artifact_columns(room), *content).where(
        ArtifactRow.session_id == read_scope.session_id, ArtifactRow.artifact_id == command.artifact_id
    )
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise missing_in(connection, read_scope, "artifact", command.artifact_id)
    return whole_artifact(row._mapping, offset=offset, room=room)


def list_artifacts(connection: Connection, command: ListArtifacts, *, read_scope: ReadScope) -> Page:
    """List artifacts without content, the latest first."""
    statement = (
        select(*artifact_columns(command.max_characters // 2), SessionRow.title.label("session_title"))
        .join(SessionRow, SessionRow.session_id == ArtifactRow.session_id)
        .where(within(read_scope, ArtifactRow.session_id), during(read_scope, command, ArtifactRow.created_at))
    )
    for name in ("type", "task_id"):
        if (wanted := getattr(command, name)) is not None:
            statement = statement.where(getattr(ArtifactRow, name) == wanted)
    if (before := decode_cursor(command.cursor, RowPosition)) is not None:
        statement = statement.where(ArtifactRow.position < before)
    rows = stream(connection, statement.order_by(ArtifactRow.position.desc()).limit(command.limit + 1))
    entries = ((row.position, artifact_item(row._mapping, titled=read_scope.session_id is None)) for row in rows)
    return fill(entries, limit=command.limit, room=command.max_characters)


def artifact_columns(room: int) -> Sequence[ColumnElement[Any]]:
    """Return the columns for `sessions.reads.serializers.artifact_item`."""
    plain = ("position", "artifact_id", "session_id", "name", "type", "format", "task_id", "created_by", "created_at")
    metadata = json_excerpt(ArtifactRow.metadata_, "metadata", room=room)
    return [*(getattr(ArtifactRow, name) for name in plain), *metadata]
