"""Pages of search hits, for all stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

from models import field_types as v
from models.commands.definitions import Search
from models.timestamps import format_utc
from sessions.reads.pagination import decode_cursor, fill
from sessions.reads.results import Page
from sessions.rules.records import shown_status
from sessions.search.hits import Candidate, Hit, Match, Place
from sessions.search.passages import NOT_THERE
from sessions.search.query import Query
from sessions.search.snippets import Snippet, snippet

MOST_HITS = 1_000
"""Hits that can be paged through: they are ranked anew for each page."""
SMALLEST_HIT = 150
"""Characters. Only as many hits as can fit are shown."""
AREAS = ("conversations", "memories", "artifacts", "tasks", "sessions")
ID_NAMES = {
    "conversations": "chunk_id",
    "memories": "key",
    "artifacts": "artifact_id",
    "tasks": "task_id",
    "sessions": "session_id",
}
"""Name of the id in each area."""
WITH_OFFSET = ("conversations", "memories", "artifacts")
"""Areas whose texts can be read from an offset."""
FROM_START = 400
"""Characters. A hit that begins earlier has no offset: its text is read from the start."""


class Position(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The end of a page: after `offset` hits. `match` is not used any more; earlier cursors have it."""

    match: Match
    offset: Annotated[int, Meta(ge=0, le=MOST_HITS)]


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """The current title and status that a hit shows."""

    session_title: str
    status: str | None = None


def areas_of(command: Search) -> list[str]:
    """Return the areas to search."""
    areas = list(dict.fromkeys(command.areas or AREAS))
    if command.type is not None:
        areas = [area for area in areas if area not in ("conversations", "sessions")]
    return [area for area in areas if area == "memories"] if command.tags else areas


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """The best hits, and how they were found."""

    hits: Sequence[Hit] = ()
    shown: Mapping[Place, Shown] = {}
    """Only of records that still exist."""
    by_meaning: bool = False
    not_embedded: int = 0
    """Texts that are found only by their words yet."""
    is_waiting: bool = False
    """Whether meanings will be compared, but cannot be yet."""

    @property
    def notes(self) -> dict[str, Any]:
        """Fields of the answer about the search as a whole."""
        if not self.by_meaning:
            return {"method": "words", **({"meaning_ready": False} if self.is_waiting else {})}
        return {"method": "hybrid", **({"not_embedded": self.not_embedded} if self.not_embedded else {})}


def show(command: Search, query: Query, rank: Callable[[int], Ranking]) -> Page:
    """Return a page of hits. `rank` returns the best hits, at least as many as asked for if there are."""
    start = decode_cursor(command.cursor, Position) or Position(match="all", offset=0)
    limit = min(command.limit, command.max_characters // SMALLEST_HIT + 1)
    ranking = rank(min(start.offset + limit + 1, MOST_HITS))

    def items() -> Iterator[tuple[Position, dict[str, Any] | None]]:
        for offset, hit in enumerate(ranking.hits[start.offset :], start.offset + 1):
            shown = ranking.shown.get(hit.place)
            if shown is not None:
                yield Position(match="all", offset=offset), _item(hit, shown, snippet(hit.best.text, query))

    page = fill(items(), limit=limit, room=command.max_characters)
    is_incomplete = ranking.is_waiting or ranking.not_embedded > 0
    return msgspec.structs.replace(page, notes=ranking.notes, is_incomplete=is_incomplete)


def _item(hit: Hit, shown: Shown, cut: Snippet) -> dict[str, Any]:
    best = hit.best
    has_offset = best.area in WITH_OFFSET and best.start != NOT_THERE
    offset = best.start + cut.start
    item = {
        "area": best.area,
        "session_id": best.session_id,
        "session_title": shown.session_title,
        ID_NAMES[best.area]: best.item_id,
        "type": best.type,
        "name": best.name,
        "status": _status(best, shown.status),
        "snippet": cut.text,
        "offset": offset if has_offset and offset >= FROM_START else None,
        "match": hit.match,
        "rank": round(hit.score, 4),
        "at": format_utc(best.at),
    }
    return {name: value for name, value in item.items() if value is not None}


def _status(best: Candidate, status: str | None) -> str | None:
    if best.area != "memories":
        return status
    return shown_status(cast(v.MemoryType, best.type), cast(v.MemoryStatus, status))
