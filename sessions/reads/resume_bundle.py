"""The resume bundle: the context that a newcomer needs to continue a session, within a budget.

Stores supply the rows of each section, most useful first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec

from models.errors import NotFound
from models.field_types import MemoryStatus, MemoryType
from sessions.reads.partial_values import Columns, long_text
from sessions.reads.serializers import artifact_item, last_words, memory_item, session_item, task_item
from sessions.reads.truncation import SMALLEST_PIECE, cut, fit, measure

MOST_ITEMS = 100
"""Per section."""
HEAD_CHARACTERS = 500
"""Characters of an artifact's content: enough to recognize it."""
SESSION_SHARE = 0.2
SMALL = 2_000
"""Characters below which a bundle has no room for READ_ON, nor for a long description of the session."""
READ_ON = (
    "To read texts that were cut, use retrieve_memory or get_artifact with next_offset, get_task, or "
    "read_conversation. To read items that were left out, use query_memories by type, list_tasks, list_artifacts, "
    "or search."
)

_OMITTED_IN_ARTIFACTS = ("session_id", "created_at", "created_by", "metadata")
_OMITTED_FIELDS = (*_OMITTED_IN_ARTIFACTS, "revision")
"""Fields that a bundle omits."""


class Memories(msgspec.Struct, frozen=True):
    """The memories of a section: of these types and statuses. Superseded ones come last; then what is due first comes
    first, if these can be due; then the latest."""

    types: Sequence[MemoryType]
    statuses: Sequence[MemoryStatus] = ("open", "done")
    are_due: bool = False


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """One list of the bundle."""

    name: str
    share: float
    """Fraction of the room that the previous sections left."""
    item: Callable[[Columns, int], dict[str, Any]]
    """Serializes a row within the characters that are left."""
    memories: Memories | None = None


Rows = Callable[[Section, int], Iterator[Columns]]
"""Returns a section's rows in order; takes the characters that one text may have. Each row has the `total` of rows."""


def compose(session: Columns, rows: Rows, *, room: int) -> dict[str, Any]:
    """Compose the bundle of a session, in at most `room` characters; below 1,000 they may not suffice for its frame."""
    is_small = room < SMALL
    head = fit(session_item(session), int(room * SESSION_SHARE))
    if is_small and measure(head) > room // 4:
        title = cut(session["title"], room // 8)
        head = {"session_id": session["session_id"], "title": title, "status": session["status"], "truncated": True}
    room -= measure(head) + (_SMALL_FRAME if is_small else _FRAME)
    sections: dict[str, list[dict[str, Any]]] = {}
    left_out: dict[str, int] = {}
    for section in SECTIONS:
        share = max(int(room * section.share), 0)
        sections[section.name], missing = _fit_items(section, rows(section, share), room=share)
        room -= measure(sections[section.name])
        if missing:
            left_out[section.name] = missing
    sections["conversation"].reverse()
    bundle: dict[str, Any] = {"session": head, **sections}
    shown = [head, *(item for items in sections.values() for item in items)]
    if left_out or any("truncated" in item for item in shown):
        bundle |= {"truncated": True, "left_out": left_out} | ({} if is_small else {"read_on": READ_ON})
    return bundle


def none_active() -> NotFound:
    """The error when no session is active."""
    return NotFound(
        "No session is active.",
        code="session_not_found",
        field="session_id",
        hint="list_sessions shows paused and completed sessions; send resume_session or create_session.",
    )


def _fit_items(section: Section, rows: Iterator[Columns], *, room: int) -> tuple[list[dict[str, Any]], int]:
    """The items that fit, and the number of those that do not."""
    fitting: list[dict[str, Any]] = []
    total = 0
    for row in rows:
        total = row["total"]
        item = section.item(row, room)
        size = measure(item) + 1
        if size > room or (room < SMALLEST_PIECE and "truncated" in item):
            break
        fitting.append(item)
        room -= size
    return fitting, total - len(fitting)


def _fit_half(item: dict[str, Any], room: int, *, omitted: Sequence[str] = _OMITTED_FIELDS) -> dict[str, Any]:
    return fit({name: value for name, value in item.items() if name not in omitted}, room // 2)


def _memory(row: Columns, room: int) -> dict[str, Any]:
    return _fit_half(memory_item(row), room)


def _task(row: Columns, room: int) -> dict[str, Any]:
    return _fit_half(task_item(row), room)


def _artifact(row: Columns, room: int) -> dict[str, Any]:
    item = artifact_item(row) | {"content": long_text(row, "content", paged=True)}
    return _fit_half(item, room, omitted=_OMITTED_IN_ARTIFACTS)


_memories = partial(Section, item=_memory)

SECTIONS = (
    _memories(name="open_questions", share=0.15, memories=Memories(("question",), ("open",), are_due=True)),
    _memories(name="action_items", share=0.2, memories=Memories(("action_item",), ("open",), are_due=True)),
    _memories(name="decisions", share=0.25, memories=Memories(("decision",), ("open", "done", "superseded"))),
    Section(name="tasks", share=0.25, item=_task),
    _memories(name="facts", share=0.12, memories=Memories(("fact",))),
    _memories(name="ideas", share=0.08, memories=Memories(("idea",))),
    _memories(name="notes", share=0.08, memories=Memories(("note",))),
    _memories(name="other_memories", share=0.08, memories=Memories(("context", "preference", "risk", "general"))),
    Section(name="artifacts", share=0.15, item=_artifact),
    Section(name="conversation", share=1.0, item=last_words),
)
"""The lists of a bundle in their order: what was said comes last, since all else is drawn from it."""

_SMALL_FRAME = measure(
    {"session": 0, "truncated": True, "left_out": {section.name: 99_999 for section in SECTIONS}}
    | {section.name: [] for section in SECTIONS}
)
_FRAME = _SMALL_FRAME + measure({"read_on": READ_ON})
"""Characters of a bundle besides its items."""
