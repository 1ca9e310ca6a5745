"""Renders a session as a Markdown document for people. It cannot be imported; the JSON export can."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from textwrap import indent
from typing import Any

import msgspec
from msgspec import Raw

from models.commands.responses import make_title
from models.timestamps import format_utc

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
"""Headings of memory types, in the order of the document."""
TEXT_FORMATS = {None, "markdown", "md", "text", "txt", "plain"}
"""Formats of artifacts that are included verbatim; others are quoted as code."""


def write_markdown(
    session: Any,
    *,
    memories: Callable[[str], Iterable[Any]],
    tasks: Iterable[Any],
    artifacts: Iterable[Any],
    chunks: Iterable[Any],
) -> Iterator[str]:
    """Yield the document in pieces: decisions and actions first, the conversation last. All items have the fields of
    `sessions.documents.document` and are in order of creation; `memories` returns those of a type."""
    yield f"# {session.title}\n\n{session.status.capitalize()}. "
    yield f"Started {_day(session.created_at)}, last active {_day(session.last_activity_at)}."
    yield f"\n\nWith {', '.join(session.participants)}." if session.participants else ""
    yield f"\n\n{session.context}" if session.context else ""
    yield "\n"
    for kind, heading in HEADINGS.items():
        yield from _section(heading, (_memory(memory) for memory in memories(kind)))
    yield from _section("Tasks", (_task(task) for task in tasks))
    yield from _section("Artifacts", (_artifact(artifact) for artifact in artifacts))
    yield from _section("Conversation", (_chunk(chunk) for chunk in chunks))


def _section(heading: str, pieces: Iterable[str]) -> Iterator[str]:
    for number, piece in enumerate(pieces):
        yield piece if number else f"\n## {heading}\n\n{piece}"


def _memory(memory: Any) -> str:
    box = ("[x] " if memory.status == "done" else "[ ] ") if memory.type == "action_item" else ""
    shows_status = memory.status == "superseded" or (memory.type == "question" and memory.status == "done")
    notes = [memory.status] if shows_status else []
    notes += [f"due {memory.due}"] if memory.due else []
    notes += [f"#{tag}" for tag in memory.tags]
    return _bullet(box + _prose(memory.content) + (f" ({', '.join(notes)})" if notes else ""))


def _task(task: Any) -> str:
    box = "[x]" if task.status == "completed" else "[ ]"
    agent = f", {task.agent_name}" if task.agent_name else ""
    has_title = task.title not in (None, make_title(task.description))
    text = f"{box} {task.title if has_title else task.description} ({task.status.replace('_', ' ')}{agent})"
    text += f"\n\n{task.description}" if has_title else ""
    text += f"\n\n{task.error}" if task.error else ""
    text += f"\n\n{_prose(task.output)}" if task.output is not None else ""
    return _bullet(text)


def _artifact(artifact: Any) -> str:
    revision = f" (revision {artifact.revision})" if artifact.revision > 1 else ""
    return f"### {artifact.name}{revision}\n\n{_content(artifact)}\n\n"


def _content(artifact: Any) -> str:
    value = msgspec.json.decode(artifact.content)
    text = value if isinstance(value, str) else bytes(artifact.content).decode()
    is_plain = artifact.type != "code" and (artifact.format and artifact.format.lower()) in TEXT_FORMATS
    if isinstance(value, str) and is_plain:
        return text
    return _fenced(text, artifact.format or ("" if isinstance(value, str) else "json"))


def _chunk(chunk: Any) -> str:
    participants = f", {', '.join(chunk.participants)}" if chunk.participants else ""
    return f"### {format_utc(chunk.start_at or chunk.created_at)}{participants}\n\n{chunk.content}\n\n"


def _prose(content: Raw) -> str:
    """JSON as prose: the first value of an object, then the others as bullets."""
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


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"
