"""Reads recent activity from Postgres: finds the latest items of each kind by its index on time, then their texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Text, and_, literal, select, tuple_, union_all

from models.commands.definitions import RecentActivity
from models.tables import ARTIFACTS, CHUNKS, MEMORIES, SESSIONS, TASKS, said_at, updated_at
from sessions.postgres.reads.partial_values import json_excerpt, text_excerpt
from sessions.postgres.reads.read_scope import during, within
from sessions.postgres.reads.tasks import OPEN_QUESTION
from sessions.reads.pagination import decode_cursor
from sessions.reads.partial_values import Columns
from sessions.reads.read_scope import ReadScope
from sessions.reads.recent_activity import (
    ID_NAMES,
    READ_LENGTH,
    SOURCES_BY_NAME,
    Kind,
    Place,
    Source,
    page_of_activity,
    sources_of,
    wanted_of,
)
from sessions.reads.results import Page

_TABLES: dict[Kind, Any] = {
    "session": SESSIONS.c,
    "conversation": CHUNKS.c,
    "memory": MEMORIES.c,
    "task": TASKS.c,
    "artifact": ARTIFACTS.c,
}


_COMPUTED = {("conversation", "said_at"): said_at(CHUNKS.c), ("artifact", "updated_at"): updated_at(ARTIFACTS.c)}
"""Times that are not columns."""
_ID_COLUMNS = {kind: table[ID_NAMES[kind]] for kind, table in _TABLES.items()}


def recent_activity(connection: Connection, command: RecentActivity, *, read_scope: ReadScope) -> Page:
    """List what happened, the latest first."""
    rows = connection.execute(latest(command, read_scope)).all()
    places = [Place(at=row.at, source=row.source, session_id=row.session_id, id=row.id) for row in rows]
    kinds = [SOURCES_BY_NAME[place.source].kind for place in places]
    texts = {kind: _texts(connection, kind, places) for kind in dict.fromkeys(kinds)}
    found = ((place, texts[kind].get((place.session_id, place.id))) for place, kind in zip(places, kinds, strict=True))
    return page_of_activity(((place, columns) for place, columns in found if columns is not None), command)


def latest(command: RecentActivity, read_scope: ReadScope) -> Select[Any]:
    """Select the places of a page. Each source reads only as many entries of its index."""
    after = decode_cursor(command.cursor, Place)
    parts = [select(_of_source(source, command, read_scope, after=after).subquery()) for source in sources_of(command)]
    every = union_all(*parts).subquery()
    order = (every.c.at.desc(), every.c.source.collate("C").desc(), every.c.session_id.desc(), every.c.id.desc())
    return select(every).order_by(*order).limit(wanted_of(command))


def _of_source(source: Source, command: RecentActivity, read_scope: ReadScope, *, after: Place | None) -> Select[Any]:
    table, key = _TABLES[source.kind], _ID_COLUMNS[source.kind]
    at = _time(source.kind, source.at)
    conditions = [within(read_scope, table.session_id), during(read_scope, command, at), at.is_not(None)]
    if source.changed is not None:
        _, until = command.period(read_scope.now)
        changed = _time(source.kind, source.changed)
        conditions += [changed >= until, changed > table.created_at]  # The latter is the condition of an index.
    if after is not None:
        conditions.append(_before(after, source, at, table.session_id, key))
    columns = (literal(source.name, Text).label("source"), table.session_id, key.label("id"), at.label("at"))
    order = (at.desc(), table.session_id.desc(), key.desc())
    return select(*columns).where(*conditions).order_by(*order).limit(wanted_of(command))


def _time(kind: Kind, name: str) -> Any:
    return _COMPUTED[kind, name] if (kind, name) in _COMPUTED else _TABLES[kind][name]


def _before(after: Place, source: Source, at: Any, session_id: Any, key: Any) -> Any:
    """The condition that an item of the source comes after this place in the list, as a limit of its index."""
    if source.name != after.source:
        return at <= after.at if source.name < after.source else at < after.at
    return and_(at <= after.at, tuple_(at, session_id, key) < (after.at, after.session_id, after.id))


def _texts(connection: Connection, kind: Kind, places: Sequence[Place]) -> dict[tuple[str, str], Columns]:
    """Return the columns of the items of a kind, by their session and id."""
    table, key = _TABLES[kind], _ID_COLUMNS[kind]
    names = [(place.session_id, place.id) for place in places if SOURCES_BY_NAME[place.source].kind == kind]
    columns = [table.session_id, key.label("id"), table.created_at, SESSIONS.c.title.label("session_title")]
    statement = select(*columns, *_DETAILS[kind]).where(tuple_(table.session_id, key).in_(names))
    if table is not SESSIONS.c:
        statement = statement.join(SESSIONS, SESSIONS.c.session_id == table.session_id)
    return {(row.session_id, row.id): row._mapping for row in connection.execute(statement)}


def _json(column: Any, name: str) -> list[ColumnElement[Any]]:
    return json_excerpt(column, name, room=READ_LENGTH)


def _text(column: Any, name: str) -> list[ColumnElement[Any]]:
    return text_excerpt(column, name, room=READ_LENGTH)


_DETAILS: dict[Kind, Sequence[Any]] = {
    "session": [SESSIONS.c.status, *_text(SESSIONS.c.context, "context")],
    "conversation": [CHUNKS.c.participants, *_text(CHUNKS.c.content, "content")],
    "memory": [MEMORIES.c.type, MEMORIES.c.status, *_json(MEMORIES.c.content, "content")],
    "task": [
        TASKS.c.status,
        TASKS.c.agent_name,
        TASKS.c.title,
        *_text(TASKS.c.description, "description"),
        *_json(TASKS.c.output, "output"),
        *_text(TASKS.c.error, "error"),
        *_text(TASKS.c.cancel_reason, "cancel_reason"),
        *_text(OPEN_QUESTION, "question"),
        *_json(TASKS.c.progress, "progress"),
    ],
    "artifact": [ARTIFACTS.c.name, ARTIFACTS.c.type, *_json(ARTIFACTS.c.content, "content")],
}
