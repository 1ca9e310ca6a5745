"""A session as a document that one would send to a colleague. Nothing reads it back; for that there is the export."""

from __future__ import annotations

import re
from collections.abc import Iterator
from textwrap import indent
from typing import Any

import msgspec
from msgspec import Raw
from sqlalchemy import Connection, Row, cast, select

from models.tables import ArtifactRow, ChunkRow, MemoryRow, SessionRow, TaskRow
from models.timestamps import format_utc
from sessions.postgres.excerpts import Verbatim
from sessions.postgres.reach import require_session, stream

HEADINGS = {
    "decision": "Decisions",
    "action_item": "Action items",
    "question": "Questions",
    "risk": "Risks",
    "idea": "Ideas",
    "fact": "Facts",
    "preference": "Preferences",
    "context": "Context",
    "note": "Notes",
    "general": "Other",
}
"""Of the memories, in the order of the document."""
TEXT_FORMATS = {None, "markdown", "md", "text", "txt", "plain"}
"""Of artifacts that are put into the document as they are; others are quoted as code."""


def export_markdown(connection: Connection, session_id: str) -> Iterator[str]:
    """The document, piece by piece: what was decided and is to be done first, the conversation last. Raises NotFound
    before the first piece."""
    require_session(connection, session_id)
    return _document(connection, session_id)


def _document(connection: Connection, session_id: str) -> Iterator[str]:
    session = connection.execute(select(SessionRow.__table__).where(SessionRow.session_id == session_id)).one()
    yield f"# {session.title}\n\n{session.status.capitalize()}. "
    yield f"Started {_day(session.created_at)}, last active {_day(session.last_activity_at)}."
    yield f"\n\nWith {', '.join(session.participants)}." if session.participants else ""
    yield f"\n\n{session.context}" if session.context else ""
    yield "\n"
    for kind, heading in HEADINGS.items():
        yield from _section(heading, _memories(connection, session_id, kind))
    yield from _section("Tasks", _tasks(connection, session_id))
    yield from _section("Artifacts", _artifacts(connection, session_id))
    yield from _section("Conversation", _chunks(connection, session_id))


def _section(heading: str, pieces: Iterator[str]) -> Iterator[str]:
    for number, piece in enumerate(pieces):
        yield piece if number else f"\n## {heading}\n\n{piece}"


def _memories(connection: Connection, session_id: str, kind: str) -> Iterator[str]:
    content = cast(MemoryRow.content, Verbatim).label("content")
    statement = select(content, MemoryRow.status, MemoryRow.tags).where(
        MemoryRow.session_id == session_id, MemoryRow.type == kind
    )
    for row in stream(connection, statement.order_by(MemoryRow.created_at, MemoryRow.key)):
        box = ("[x] " if row.status == "done" else "[ ] ") if kind == "action_item" else ""
        notes = [row.status] if row.status == "superseded" or (kind == "question" and row.status == "done") else []
        notes += [f"#{tag}" for tag in row.tags]
        yield _bullet(box + _prose(row.content) + (f" ({', '.join(notes)})" if notes else ""))


def _tasks(connection: Connection, session_id: str) -> Iterator[str]:
    output = cast(TaskRow.output, Verbatim).label("output")
    columns = (TaskRow.description, TaskRow.status, TaskRow.agent_name, TaskRow.error, output)
    statement = select(*columns).where(TaskRow.session_id == session_id).order_by(TaskRow.position)
    for row in stream(connection, statement):
        box = "[x]" if row.status == "completed" else "[ ]"
        whom = f", {row.agent_name}" if row.agent_name else ""
        text = f"{box} {row.description} ({row.status.replace('_', ' ')}{whom})"
        text += f"\n\n{row.error}" if row.error else ""
        text += f"\n\n{_prose(row.output)}" if row.output is not None else ""
        yield _bullet(text)


def _artifacts(connection: Connection, session_id: str) -> Iterator[str]:
    content = cast(ArtifactRow.content, Verbatim).label("content")
    columns = (ArtifactRow.name, ArtifactRow.type, ArtifactRow.format, content)
    statement = select(*columns).where(ArtifactRow.session_id == session_id).order_by(ArtifactRow.position)
    for row in stream(connection, statement):
        yield f"### {row.name}\n\n{_artifact(row)}\n\n"


def _artifact(row: Row[Any]) -> str:
    value = msgspec.json.decode(row.content)
    text = value if isinstance(value, str) else bytes(row.content).decode()
    if isinstance(value, str) and row.type != "code" and (row.format and row.format.lower()) in TEXT_FORMATS:
        return text
    return _fenced(text, row.format or ("" if isinstance(value, str) else "json"))


def _chunks(connection: Connection, session_id: str) -> Iterator[str]:
    columns = (ChunkRow.content, ChunkRow.participants, ChunkRow.start_at, ChunkRow.created_at)
    statement = select(*columns).where(ChunkRow.session_id == session_id).order_by(ChunkRow.position)
    for row in stream(connection, statement):
        who = f", {', '.join(row.participants)}" if row.participants else ""
        yield f"### {format_utc(row.start_at or row.created_at)}{who}\n\n{row.content}\n\n"


def _prose(content: Raw) -> str:
    """JSON as somebody would write it down: the first text of an object, then the rest in points."""
    match msgspec.json.decode(content):
        case str(text):
            return text
        case dict(fields) if fields and all(isinstance(value, str | int | float) for value in fields.values()):
            (_, first), *rest = fields.items()
            return "\n".join([str(first), *(f"- {name}: {value}" for name, value in rest)])
        case _:
            return _fenced(bytes(content).decode(), "json")


def _fenced(text: str, language: str) -> str:
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _bullet(text: str) -> str:
    return f"- {indent(text, '  ').lstrip()}\n"


def _day(moment: Any) -> str:
    return f"{moment:%Y-%m-%d}"
