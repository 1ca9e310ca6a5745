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
from sessions.reads.prose import describe

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
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_HEADING = re.compile(r"^( {0,3})(#{1,6}(?=\s|$)|-+\s*$|=+\s*$)")
"""The start of a line that makes it, or the line above, a heading."""


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
    yield f"\n\n{_close_code(session.context)}" if session.context else ""
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
    return _bullet(_prose(memory.content, before=box, after=f"({', '.join(notes)})" if notes else ""))


def _task(task: Any) -> str:
    box = "[x]" if task.status == "completed" else "[ ]"
    agent = f", {task.agent_name}" if task.agent_name else ""
    has_title = task.title not in (None, make_title(task.description))
    is_long = has_title or "\n" in task.description
    title = (task.title or make_title(task.description)) if is_long else task.description
    text = f"{box} {title} ({task.status.replace('_', ' ')}{agent})"
    text += f"\n\n{_close_code(task.description)}" if is_long else ""
    text += f"\n\n{_close_code(task.error)}" if task.error else ""
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
        return _close_code(text)
    return _fenced(text, artifact.format or ("" if isinstance(value, str) else "json"))


def _chunk(chunk: Any) -> str:
    participants = f", {', '.join(chunk.participants)}" if chunk.participants else ""
    content = _close_code(chunk.content) if chunk.format == "summary" else _lines(chunk.content)
    return f"### {format_utc(chunk.start_at or chunk.created_at)}{participants}\n\n{content}\n\n"


def _lines(text: str) -> str:
    """Keep each line of a dialogue a line of its own, and none a heading of the document."""
    shown: list[str] = []
    fence = ""
    for line in _close_code(text).split("\n"):
        before, fence = fence, _fence_after(line, fence)
        if before or fence:
            shown.append(line)
            continue
        if shown and shown[-1].strip() and line.strip():
            shown[-1] += "  "  # A hard line break.
        shown.append(_HEADING.sub(r"\1\\\2", line))
    return "\n".join(shown)


def _prose(content: Raw, *, before: str = "", after: str = "") -> str:
    """JSON as prose: the statement of an object, then its other fields as bullets. What comes after it is on the line
    of the statement, or below a longer text."""
    described = describe(msgspec.json.decode(content))
    headline = _fenced(bytes(content).decode(), "json") if described is None else _close_code(described.headline)
    details = described.details if described else ()
    gap = "" if not after else "\n\n" if "\n" in headline else " "
    bullets = (f"\n- {name}: {indent(_close_code(value), '  ').lstrip()}" for name, value in details)
    return f"{before}{headline}{gap}{after}{''.join(bullets)}"


def _close_code(text: str) -> str:
    """Close a block of code that the text leaves open, or all that follows would be code."""
    fence = ""
    for line in text.split("\n"):
        fence = _fence_after(line, fence)
    return f"{text}\n{fence}" if fence else text


def _fence_after(line: str, fence: str) -> str:
    """The fence of the block of code in which the text is after this line; empty outside of one."""
    found = _FENCE.match(line)
    if found is None:
        return fence
    mark, rest = found.groups()
    if not fence:
        return mark if mark[0] == "~" or "`" not in rest else ""
    is_end = mark[0] == fence[0] and len(mark) >= len(fence) and not rest.strip()
    return "" if is_end else fence


def _fenced(text: str, language: str) -> str:
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _bullet(text: str) -> str:
    return f"- {indent(text, '  ').lstrip()}\n"


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"
