"""Ranks the passages that a store has found, and shows each record once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

from sessions.search.query import Query
from sessions.search.ranking import Found, combine, has_phrases
from sessions.search.words import split_words

Match = Literal["all", "partial", "meaning"]
LEAST_COSINE = 0.1
"""The least cosine of a hit without any word of the query. Passages about something else mostly have less."""
LEAST_COVERAGE = 0.2
"""The least share of the query in a hit that has only parts of identifiers, such as a number."""
Place = tuple[str, str, str]
"""Area, session and id of a record."""

_Scored = tuple[float, set[int], "Candidate"]
"""The value of a passage, and the numbers of the terms that it has."""
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A passage with words of the query."""

    area: str
    session_id: str
    item_id: str
    start: int
    text: str
    at: datetime
    type: str | None
    name: str | None
    weight: float
    found: Found
    cosine: float | None = None
    """The nearness of its meaning to that of the query, if both have a vector."""

    @property
    def place(self) -> Place:
        """The record of the passage."""
        return self.area, self.session_id, self.item_id


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A record, with its best passage."""

    best: Candidate
    score: float
    match: Match

    @property
    def place(self) -> Place:
        """The record."""
        return self.best.place

    @property
    def order(self) -> tuple[float, float, str, str, str]:
        """The sort key: the best first, then the latest."""
        return -self.score, -(self.best.at - _BEGINNING).total_seconds(), *self.place


def rank(
    candidates: Sequence[Candidate], query: Query, rarities: Sequence[float], *, by_meaning: bool = False
) -> list[Hit]:
    """Return the records of these passages, the best first. `rarities` are the weights of the query's terms."""
    records: dict[Place, list[_Scored]] = {}
    for candidate in candidates:
        score, terms = candidate.found.score(query.terms, rarities)
        has_words = score.coverage >= LEAST_COVERAGE or any(not query.terms[number].is_part for number in terms)
        if not has_words and (candidate.cosine or 0.0) < LEAST_COSINE:
            continue
        value = combine(score, candidate.cosine, length=len(candidate.text)) if by_meaning else score.value
        records.setdefault(candidate.place, []).append((value, terms, candidate))
    return sorted((_hit(passages, query) for passages in records.values()), key=lambda hit: hit.order)


def _hit(passages: Sequence[_Scored], query: Query) -> Hit:
    value, _, best = max(passages, key=lambda passage: (passage[0], -passage[2].start))
    found = {term for _, terms, _ in passages for term in terms}
    is_full = query.is_full(found)
    if is_full and query.phrases:
        is_full = any(has_phrases([word.forms for word in split_words(item.text)], query) for _, _, item in passages)
    match: Match = "all" if is_full else "partial" if found else "meaning"
    # A negative value would rise with the lower weight of what was superseded.
    return Hit(best=best, score=max(value, 0.0) * best.weight, match=match)
