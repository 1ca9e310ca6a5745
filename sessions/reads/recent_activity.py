"""Recent activity: what happened in sessions, for all stores. Defines what counts, its order, and how it is shown.

Each thing is listed once, at its latest change in the period, or else at its creation; a session that was also
completed in the period is listed twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from models.commands.definitions import RecentActivity
from models.commands.responses import make_title, shorten
from models.timestamps import format_utc
from sessions.reads.pagination import fill
from sessions.reads.partial_values import Columns
from sessions.reads.results import Page
from sessions.reads.truncation import LongText
from sessions.rules.records import shown_status

Kind = Literal["session", "conversation", "memory", "task", "artifact"]

ID_NAMES: dict[Kind, str] = {
    "session": "session_id",
    "conversation": "chunk_id",
    "memory": "key",
    "task": "task_id",
    "artifact": "artifact_id",
}
EXCERPT_LENGTH = 300
"""Characters: enough to know what it is about. Other reads return the whole text."""
READ_LENGTH = 4 * EXCERPT_LENGTH
"""Characters to fetch of each text; JSON that is longer is shown as it is written."""
MOST_DEPTH = 3
"""Levels of JSON that are shown as text; deeper ones stay JSON."""
SMALLEST_ITEM = 150
"""Characters. Only as many items are fetched as can fit."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which something becomes activity: items of a kind at the time in one of their columns."""

    name: str
    """Sorts items of the same time."""
    kind: Kind
    at: str
    changed: str | None = None
    """The column with the time of the latest change, which must be after the period."""
    event: Literal["created", "completed", "said"] | None = None
    """None: created or changed, by its times."""


SOURCES = (
    Source(name="session.completed", kind="session", at="completed_at", event="completed"),
    Source(name="session.created", kind="session", at="created_at", event="created"),
    Source(name="chunk", kind="conversation", at="said_at", event="said"),
    Source(name="memory", kind="memory", at="updated_at"),
    Source(name="memory.created", kind="memory", at="created_at", changed="updated_at", event="created"),
    Source(name="task", kind="task", at="updated_at"),
    Source(name="task.created", kind="task", at="created_at", changed="updated_at", event="created"),
    Source(name="artifact", kind="artifact", at="updated_at"),
    Source(name="artifact.created", kind="artifact", at="created_at", changed="updated_at", event="created"),
)
SOURCES_BY_NAME = {source.name: source for source in SOURCES}


class Place(msgspec.Struct, frozen=True, kw_only=True, array_like=True, order=True):
    """The position of an item in the order: by time, then by these names, the last first."""

    at: datetime
    source: str
    session_id: str
    id: str


def sources_of(command: RecentActivity) -> list[Source]:
    """The sources that can have items. Nothing changes after a period that is still going on."""
    return [source for source in SOURCES if source.changed is None or command.until is not None]


def wanted_of(command: RecentActivity) -> int:
    """The number of items to fetch: those that can fit on the page, and one more."""
    return min(command.limit, command.max_characters // SMALLEST_ITEM + 1) + 1


def page_of_activity(found: Iterable[tuple[Place, Columns]], command: RecentActivity) -> Page:
    """A page of items, which are passed in order, with their columns."""
    entries = ((place, activity_item(place, columns)) for place, columns in found)
    return fill(entries, limit=wanted_of(command) - 1, room=command.max_characters)


def activity_item(place: Place, columns: Columns) -> dict[str, Any]:
    """An item as all stores show it."""
    source = SOURCES_BY_NAME[place.source]
    event = source.event or ("created" if columns["created_at"] == place.at else "changed")
    item: dict[str, Any] = {
        "kind": source.kind,
        "event": event,
        "at": format_utc(place.at),
        "session_id": place.session_id,
        "session_title": columns["session_title"],
        ID_NAMES[source.kind]: place.id,
    }
    match source.kind:
        case "session":
            item |= {"status": columns["status"], "excerpt": _excerpt(columns, "context")}
        case "conversation":
            item |= {"participants": columns["participants"], "excerpt": _excerpt(columns, "content")}
            item |= {"total_characters": columns["content_length"]}
        case "memory":
            status = shown_status(columns["type"], columns["status"])
            item |= {"type": columns["type"], "status": status, "excerpt": _excerpt(columns, "content")}
        case "task":
            item |= {"status": columns["status"], "agent_name": columns["agent_name"]}
            item |= {"title": columns["title"] or make_title(columns["description_text"])}
            outcome = _excerpt(columns, *_OUTCOMES.get(columns["status"], ()))
            item |= {"excerpt": outcome or _excerpt(columns, "description")}
        case "artifact":
            item |= {"name": columns["name"], "type": columns["type"], "excerpt": _excerpt(columns, "content")}
    texts = {name: LongText(text=item[name], length=len(item[name])) for name in _TEXTS if item.get(name)}
    return {name: value for name, value in (item | texts).items() if value not in (None, "", [])}


_TEXTS = ("title", "excerpt")
"""Texts that are cut further where little room is left."""
_OUTCOMES: Mapping[str, tuple[str, ...]] = {
    "completed": ("output",),
    "failed": ("error",),
    "cancelled": ("cancel_reason",),
    "input_required": ("question",),
    "running": ("progress",),
}
"""The text that tells how a task stands, by its status."""


def _excerpt(columns: Columns, *names: str) -> str:
    """The beginning of the first of these texts that there is, on one line."""
    for name in names:
        if columns[f"{name}_length"] is not None:
            whole = columns.get(f"{name}_whole")
            value = columns[f"{name}_text"] if whole is None else msgspec.json.decode(whole)
            return shorten(_line(_readable(value)), EXCERPT_LENGTH)
    return ""


def _readable(value: Any, *, depth: int = MOST_DEPTH) -> str:
    """JSON as text without brackets: the names of fields before their values."""
    match value:
        case str():
            return value
        case dict() if depth:
            return "; ".join(f"{name}: {_readable(part, depth=depth - 1)}" for name, part in value.items())
        case list() if depth:
            return ", ".join(_readable(part, depth=depth - 1) for part in value)
    return msgspec.json.encode(value).decode()


def _line(text: str) -> str:
    return " ".join(text.split())
