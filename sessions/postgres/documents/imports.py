"""Imports a complete session into Postgres from its document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, select

from models.queue.inbox import shard_of
from models.tables import SESSIONS
from sessions.backend import Imported
from sessions.documents.document import event_record, records, session_record
from sessions.documents.import_validation import Document, require_same
from sessions.postgres.commands.locks import lock_shard
from sessions.postgres.commands.writing import write_changes, write_events
from sessions.postgres.documents.exports import export_session
from sessions.rules.records import Record
from sessions.rules.state import Changes

STATEMENT_BYTES = 4 * 1_048_576
"""Data written per statement, so that none takes too long."""

T = TypeVar("T")


def import_session(connection: Connection, document: Document) -> Imported:
    """Import the session in the caller's transaction, under the shard's lock. Raises Conflict if a different session
    has its id; an identical one is left unchanged."""
    session_id = document.session.session_id
    lock_shard(connection, shard_of(session_id))
    if connection.scalar(select(SESSIONS.c.session_id).where(SESSIONS.c.session_id == session_id)) is not None:
        require_same(document.pieces(), export_session(connection, session_id), session_id)
        return Imported(session_id=session_id, created=False)
    _write(connection, [session_record(document.session)])
    for name in ("chunks", "memories", "tasks", "artifacts", "artifact_revisions"):
        made = (record for item in document.items(name) for record in records(item, session_id))
        for part in _parts(made):
            _write(connection, part)
    for events in _parts(event_record(item, session_id) for item in document.items("events")):
        write_events(connection, events)
    return Imported(session_id=session_id, created=True)


def _write(connection: Connection, made: list[Any]) -> None:
    put: dict[Any, Record] = {record.key: record for record in made}
    write_changes(connection, Changes(put=put, reworded=dict.fromkeys(put, False)))


def _parts(items: Iterable[T]) -> Iterator[list[T]]:
    part: list[T] = []
    size = 0
    for item in items:
        part.append(item)
        size += len(msgspec.json.encode(item))
        if size >= STATEMENT_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
