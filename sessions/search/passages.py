"""Splits records into passages: short pieces of readable text, which searches rank and show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Raw

from models.field_types import UNSPACED_LETTERS, UNSPACED_SYLLABLES
from sessions.rules.records import Artifact, Chunk, Memory, Question, Record, Session, Task

PASSAGE_WORDS, OVERLAP_WORDS = 200, 40
"""Words of a passage, and those that it shares with the next: what stands across an end is found in one of them."""
MEANING_WORDS, MEANING_OVERLAP = 60, 20
"""Words of the pieces of a passage whose meanings are compared."""
SUPERSEDED_WEIGHT = 0.5
"""Superseded memories rank below their successors."""
MOST_LABELS = 50
"""Tags or participants that are searched."""
NOT_THERE = -1
"""The `start` of all passages of JSON: it is read as it was sent, not as the lines that are searched."""

_SEPARATORS = re.compile(r"[-_./:]+")
_PIECES = re.compile(
    f"[{UNSPACED_SYLLABLES}{UNSPACED_LETTERS}]{{1,2}}|[^\\s{UNSPACED_SYLLABLES}{UNSPACED_LETTERS}]{{1,24}}\\s{{0,24}}|\\s{{1,24}}"
)
"""Words for dividing a text, or as much of another script or of a long word."""


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a record's text."""

    area: str
    session_id: str
    item_id: str
    number: int
    """0 for the first passage of a record."""
    start: int
    """Character of the record's text at which the passage begins, or NOT_THERE."""
    text: str
    label: str
    """Ids, names and tags: searched, but not shown in snippets."""
    at: datetime
    type: str | None = None
    name: str | None = None
    tags: list[str] = []
    weight: float = 1.0


def passages_of(record: Record) -> Iterator[Passage]:
    """Yield the passages of a record; none for records that are not searched."""
    described = _describe(record)
    if described is None:
        return
    is_json = isinstance(record, Memory | Artifact) and not bytes(record.content).startswith(b'"')
    for passage in divide(*described):
        yield msgspec.structs.replace(passage, start=NOT_THERE) if is_json else passage


def divide(first: Passage, text: str) -> Iterator[Passage]:
    """Yield the passages of a text, with the other fields of the first one."""
    for number, (start, end) in enumerate(_windows(text)):
        yield msgspec.structs.replace(first, number=number, start=start, text=text[start:end])


def meaning_texts(area: str, *, item_id: str, name: str | None, tags: Sequence[str], text: str) -> list[str]:
    """Return the texts whose meaning stands for a passage: pieces of a few sentences, because the vector of a long text
    says little about any one of them. Each begins with the key and the tags of a memory, or the name of an artifact,
    which people choose to say what it is about."""
    label = name or ""
    if area == "memories":
        label = " ".join([_SEPARATORS.sub(" ", item_id), *tags[:MOST_LABELS]])
    pieces = [text[begin:end] for begin, end in _windows(text, words=MEANING_WORDS, overlap=MEANING_OVERLAP)]
    return [f"{label}\n{piece}" if label else piece for piece in pieces]


def readable(value: Any) -> str:
    """Return the text of a JSON value, one line for each of its values: `name: value`."""
    if isinstance(value, Raw):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:  # Earlier versions have stored halves of surrogate pairs.
            return bytes(value).decode()
    return value if isinstance(value, str) else "\n".join(_lines(value))


def _describe(record: Record) -> tuple[Passage, str] | None:
    """Return the first passage of a record, without its text, and the whole text."""
    match record:
        case Session():
            label = f"{record.session_id} {_joined(record.participants)}"
            text = "\n".join(filter(None, (record.title, record.context)))
            return _first("sessions", record, record.session_id, record.created_at, label=label), text
        case Chunk():
            at = record.start_at or record.created_at
            label = f"{record.chunk_id} {_joined(record.participants)}"
            return _first("conversations", record, record.chunk_id, at, label=label), record.content
        case Memory() if record.key[0] == "memories":
            first = _first(
                "memories",
                record,
                record.memory_key,
                record.updated_at,
                label=f"{record.memory_key} {_joined(record.tags)}",
                type=record.type,
                tags=record.tags,
                weight=SUPERSEDED_WEIGHT if record.status == "superseded" else 1.0,
            )
            return first, readable(record.content)
        case Artifact() if record.key[0] == "artifacts":
            first = _first(
                "artifacts",
                record,
                record.artifact_id,
                record.revised_at or record.created_at,
                label=f"{record.artifact_id} {record.name}",
                type=record.type,
                name=record.name,
            )
            return first, readable(record.content)
        case Task():
            first = _first(
                "tasks",
                record,
                record.task_id,
                record.created_at,
                label=f"{record.task_id} {record.agent_name or ''}",
                type=record.task_type,
            )
            return first, "\n".join(filter(None, _task_texts(record)))
        case _:
            return None


def _first(area: str, record: Record, item_id: str, at: datetime, **fields: Any) -> Passage:
    return Passage(
        area=area, session_id=record.session_id, item_id=item_id, number=0, start=0, text="", at=at, **fields
    )


def _task_texts(task: Task) -> Iterator[str]:
    yield task.title or ""
    yield task.description
    for question in msgspec.json.decode(task.questions, type=list[Question]):
        yield question.question
        yield question.answer or ""
    if task.output is not None:
        yield readable(task.output)
    yield task.error or ""


def _joined(names: Iterable[str]) -> str:
    return " ".join(list(names)[:MOST_LABELS])


def _lines(value: Any, name: str = "") -> Iterator[str]:
    # An explicit stack: JSON may be nested deeper than Python's recursion limit.
    remaining = [(name, value)]
    while remaining:
        name, value = remaining.pop()
        match value:
            case dict():
                remaining.extend(reversed(value.items()))
            case list():
                remaining.extend((name, item) for item in reversed(value))
            case None:
                pass
            case _:
                shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
                yield f"{name}: {shown}" if name else shown


def _windows(text: str, *, words: int = PASSAGE_WORDS, overlap: int = OVERLAP_WORDS) -> Iterator[tuple[int, int]]:
    """Yield where the pieces of a text begin and end, one at least."""
    starts = [piece.start() for piece in _PIECES.finditer(text)] if len(text) > words else []
    first, begin = 0, 0
    while len(starts) - first > words:
        last = first + words
        yield begin, starts[last]
        first = last - overlap
        begin = starts[first]
    yield begin, len(text)
