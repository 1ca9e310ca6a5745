"""Reads of artifacts: one with its content at any revision, and lists without content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select, union_all

from models import field_types as v
from models.commands.definitions import GetArtifact, ListArtifacts
from models.tables import ARTIFACT_REVISIONS, ARTIFACTS, SESSIONS, ArtifactColumns, ArtifactRevisionColumns, updated_at
from sessions.postgres.reads.partial_values import json_excerpt, readable_length
from sessions.postgres.reads.read_scope import during, missing_in, stream, within
from sessions.reads.pagination import RowPosition, decode_cursor, fill
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import Page
from sessions.reads.serializers import artifact_item, artifact_revision_item, whole_artifact

Columns = ArtifactColumns | ArtifactRevisionColumns


def get_artifact(connection: Connection, command: GetArtifact, *, read_scope: ReadScope) -> dict[str, Any]:
    """Return an artifact with its content. Raises NotFound."""
    room, offset = command.max_characters, command.offset
    tables: Sequence[Columns] = (ARTIFACTS.c, ARTIFACT_REVISIONS.c) if command.revision else (ARTIFACTS.c,)
    for table in tables:
        content = json_excerpt(table.content, "content", room=room, offset=offset)
        statement = select(*artifact_columns(room, table=table), *content).where(
            table.session_id == read_scope.session_id, table.artifact_id == command.artifact_id
        )
        if command.revision is not None:
            statement = statement.where(table.revision == command.revision)
        if row := connection.execute(statement).first():
            return whole_artifact(row._mapping, offset=offset, room=room)
    message = f"{command.artifact_id!r} does not have revision {command.revision}." if command.revision else ""
    raise missing_in(connection, read_scope, "artifact", command.artifact_id, message=message)


def list_artifacts(connection: Connection, command: ListArtifacts, *, read_scope: ReadScope) -> Page:
    """List artifacts without content, the latest first; with an `artifact_id`, the revisions of that. Raises NotFound
    for an unknown one."""
    if command.artifact_id is not None:
        return _list_revisions(connection, command, command.artifact_id, read_scope)
    columns = (*artifact_columns(command.max_characters // 2), ARTIFACTS.c.position)
    statement = (
        _filtered(select(*columns, SESSIONS.c.title.label("session_title")), ARTIFACTS.c, command, read_scope)
        .join(SESSIONS, SESSIONS.c.session_id == ARTIFACTS.c.session_id)
        .where(within(read_scope, ARTIFACTS.c.session_id))
    )
    if (before := decode_cursor(command.cursor, RowPosition)) is not None:
        statement = statement.where(ARTIFACTS.c.position < before)
    rows = stream(connection, statement.order_by(ARTIFACTS.c.position.desc()).limit(command.limit + 1))
    entries = ((row.position, artifact_item(row._mapping, titled=read_scope.session_id is None)) for row in rows)
    return fill(entries, limit=command.limit, room=command.max_characters)


def _list_revisions(connection: Connection, command: ListArtifacts, artifact_id: str, read_scope: ReadScope) -> Page:
    this = (ARTIFACTS.c.session_id == read_scope.require_session(), ARTIFACTS.c.artifact_id == artifact_id)
    if connection.execute(select(ARTIFACTS.c.revision).where(*this)).first() is None:
        raise missing_in(connection, read_scope, "artifact", artifact_id)
    before = decode_cursor(command.cursor, v.Revision)
    selects = []
    for table in (ARTIFACTS.c, ARTIFACT_REVISIONS.c):
        length = func.coalesce(table.characters, readable_length(table.content)).label("content_length")
        columns = [*artifact_columns(command.max_characters // 2, table=table), length]
        statement = select(*columns)
        statement = _filtered(statement, table, command, read_scope)
        statement = statement.where(table.session_id == read_scope.session_id, table.artifact_id == artifact_id)
        selects.append(statement if before is None else statement.where(table.revision < before))
    both = union_all(*selects).subquery()
    rows = stream(connection, select(both).order_by(both.c.revision.desc()).limit(command.limit + 1))
    entries = ((row.revision, artifact_revision_item(row._mapping)) for row in rows)
    return fill(entries, limit=command.limit, room=command.max_characters)


def artifact_columns(room: int, *, table: Columns = ARTIFACTS.c) -> Sequence[ColumnElement[Any]]:
    """Return the columns for `sessions.reads.serializers.artifact_item`."""
    plain = ("artifact_id", "session_id", "revision", "name", "type", "format", "task_id", "created_by", "created_at")
    metadata = json_excerpt(table.metadata, "metadata", room=room)
    return [*(table[name] for name in plain), updated_at(table).label("updated_at"), *metadata]


def _filtered(statement: Select[Any], table: Columns, command: ListArtifacts, read_scope: ReadScope) -> Select[Any]:
    filters = [during(read_scope, command, updated_at(table))]
    for name in ("type", "task_id"):
        if (wanted := getattr(command, name)) is not None:
            filters.append(table[name] == wanted)
    return statement.where(*filters)
