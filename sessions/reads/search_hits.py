"""What a search gives: its hits, and where a page of them ended; whichever store it is from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from models.timestamps import format_utc
from sessions.reads.partial_values import Columns

Match = Literal["all", "partial"]

MOST_HITS = 1_000
"""That can be paged through: hits are ranked anew for each page. Of each area so many, the latest, are ranked."""
SMALLEST_HIT = 150
"""Characters. So many hits as fit at most are given snippets, which cost more than finding them."""
ID_NAMES = {"conversations": "chunk_id", "memories": "key", "artifacts": "artifact_id"}
"""Of what is found in each area."""


class Position(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Where a page ended: after so many hits of this kind."""

    match: Match
    offset: Annotated[int, Meta(ge=0, le=MOST_HITS)]


def hit_item(columns: Columns, *, snippet: str, match: Match) -> dict[str, Any]:
    """A hit as all searches show it."""
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
