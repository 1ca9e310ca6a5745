"""Rows of the table of passages, with their words as a tsvector."""

from __future__ import annotations

from datetime import datetime

import msgspec

from sessions.search.passages import Passage
from sessions.search.words import add_positions

LABEL_GAP = 10
"""Positions between the label and the text, so that no phrase is found across."""
LAST_POSITION = 16_383
"""The largest position that a tsvector can hold."""
_SPECIAL = frozenset("'\\")


class PassageColumns(msgspec.Struct, frozen=True, kw_only=True):
    """A row of passages."""

    session_id: str
    area: str
    item_id: str
    number: int
    start: int
    text: str
    at: datetime
    type: str | None
    name: str | None
    tags: list[str]
    weight: float
    words: str


def row_of(passage: Passage) -> PassageColumns:
    """Return the row of a passage."""
    return PassageColumns(
        session_id=passage.session_id,
        area=passage.area,
        item_id=passage.item_id,
        number=passage.number,
        start=passage.start,
        text=passage.text,
        at=passage.at,
        type=passage.type,
        name=passage.name,
        tags=passage.tags,
        weight=passage.weight,
        words=_tsvector(passage),
    )


def quote(word: str) -> str:
    """Return a word as a lexeme in the text of a tsvector or tsquery."""
    if "'" in word or "\\" in word:
        word = word.replace("\\", "\\\\").replace("'", "''")
    return f"'{word}'"


def _tsvector(passage: Passage) -> str:
    places: dict[str, list[int]] = {}
    position = add_positions(passage.label, places, 1)
    last = add_positions(passage.text, places, position + LABEL_GAP)
    if last > LAST_POSITION:
        places = {form: [min(position, LAST_POSITION) for position in at] for form, at in places.items()}
    # Of the forms, not of the text: normalization makes a backslash of a small reverse solidus.
    if _SPECIAL.isdisjoint(" ".join(places)):
        shown = [f"'{form}':{at[0] if len(at) == 1 else ','.join(map(str, at))}" for form, at in places.items()]
    else:
        shown = [f"{quote(form)}:{','.join(map(str, at))}" for form, at in places.items()]
    return " ".join(shown)
