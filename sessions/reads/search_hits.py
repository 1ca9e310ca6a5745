"""Search hits, and the position where a page of them ended, for all stores."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from models.timestamps import format_utc
from sessions.reads.partial_values import Columns

Match = Literal["all", "partial"]

MOST_HITS = 1_000
"""Hits that can be paged through: they are ranked anew for each page. Each area ranks at most this many, the latest."""
SMALLEST_HIT = 150
"""Characters. Only as many hits as can fit get snippets, which cost more than finding the hits."""
ID_NAMES = {"conversations": "chunk_id", "memories": "key", "artifacts": "artifact_id"}
"""Name of the id in each area."""


class Position(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The end of a page: after `offset` hits of this kind."""

    match: Match
    offset: Annotated[int, Meta(ge=0, le=MOST_HITS)]


def hit_item(columns: Columns, *, snippet: str, match: Match) -> dict[str, Any]:
    """A hit as all searches return it."""
    item = {
        "area": columns["area"],
        "session_id": columns["session_id"],
        "session_title": columns["session_title"],
        ID_NAMES[columns["area"]]: columns["id"],
        "type": columns["type"],
        "name": columns["name"],
        "snippet": snippet,
        "match": match,
        "rank": round(columns["rank"], 4),
        "at": format_utc(columns["at"]),
    }
    return {name: value for name, value in item.items() if value is not None}
