"""A whole session as one JSON document, from which another store can take it over with nothing changed.

Left out is what follows from the rest (search texts, counts) and what would let somebody act (claim tokens).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from typing import Any

import msgspec
from sqlalchemy import JSON, Connection, Executable, Row, Select, cast, select, union_all

from models.tables import ArtifactRow, Base, ChunkRow, MemoryRevisionRow, MemoryRow, SessionRow, TaskRow
from models.timestamps import format_utc
from sessions.postgres.excerpts import Verbatim
from sessions.postgres.reach import require_session, stream

FORMAT = "session-relay/1"
_LEFT_OUT = {"position", "search", "search_text", "description_hash", "claim_token"}


def export_session(connection: Connection, session_id: str) -> Iterator[bytes]:
    """The document, piece by piece: `session`, `chunks`, `memories` with their `revisions`, `tasks`, `artifacts`, each
    list in the order in which its items were made. To show one state of the session the transaction has to be
    REPEATABLE READ. Raises NotFound before the first piece."""
    require_session(connection, session_id)
    return _document(connection, session_id)


def _document(connection: Connection, session_id: str) -> Iterator[bytes]:
    session = connection.execute(_rows(SessionRow, session_id)).one()
    yield b'{"format":%s,\n"session":%s' % (msgspec.json.encode(FORMAT), msgspec.json.encode(_item(session)))
    lists = {
        "chunks": _items(connection, _rows(ChunkRow, session_id).order_by(ChunkRow.position)),
        "memories": _memories(connection, session_id),
        "tasks": _items(connection, _rows(TaskRow, session_id).order_by(TaskRow.position)),
        "artifacts": _items(connection, _rows(ArtifactRow, session_id).order_by(ArtifactRow.position)),
    }
    for name, items in lists.items():
        yield b',\n"%s":[' % name.encode()
        for number, item in enumerate(items):
            yield (b",\n" if number else b"\n") + msgspec.json.encode(item)
        yield b"]"
    yield b"}\n"


def _items(connection: Connection, statement: Executable) -> Iterator[dict[str, Any]]:
    return (_item(row) for row in stream(connection, statement))


def _memories(connection: Connection, session_id: str) -> Iterator[dict[str, Any]]:
    """In one statement, so that revisions are never without their memory: the last of each group."""
    latest = _rows(MemoryRow, session_id).add_columns(MemoryRow.created_at.label("made_at"))
    of_memory = (MemoryRow.session_id == MemoryRevisionRow.session_id) & (MemoryRow.key == MemoryRevisionRow.key)
    earlier = _rows(MemoryRevisionRow, session_id).add_columns(MemoryRow.created_at).join(MemoryRow, of_memory)
    both = union_all(latest, earlier).order_by("made_at", "key", "revision")
    for _, group in groupby(_items(connection, both), key=lambda item: item["key"]):
        *revisions, memory = [{name: value for name, value in item.items() if name != "made_at"} for item in group]
        yield memory | {"revisions": revisions}


def _rows(table: type[Base], session_id: str) -> Select[Any]:
    columns = [column for column in table.__table__.columns if column.name not in _LEFT_OUT]
    selected = [
        cast(column, Verbatim).label(column.name) if isinstance(column.type, JSON) else column for column in columns
    ]
    return select(*selected).where(table.__table__.c.session_id == session_id)


def _item(row: Row[Any]) -> dict[str, Any]:
    return {name: format_utc(value) if isinstance(value, datetime) else value for name, value in row._mapping.items()}
