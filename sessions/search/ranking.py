"""Ranks passages by the words of a query, the same for every store."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from sessions.search.query import Query, Term

SATURATION, LENGTH_SHARE, USUAL_LENGTH = 0.9, 0.3, 40
"""BM25's k1 and b, and the number of words of an ordinary passage."""
STEM_SHARE, TYPO_SHARE, PREFIX_SHARE = 0.9, 0.8, 0.7
"""Shares of a match: for the stem of a word, a word that differs by a typing error, and a longer word."""
FREQUENCY_SHARE = 0.1
"""The most that frequent words add to a score."""

WORDS_SHARE = 0.6
"""The most that words add to a cosine, of which those of good answers are between 0.2 and 0.5: so one common word of
four adds almost nothing, and all words outweigh every difference of meaning."""
LENGTH_BONUS, FULL_LENGTH = 0.08, 400


class Score(NamedTuple):
    """The rank of a passage for a query: first by the share of the query's words, weighted by their rarity, that it
    has; then by how often they occur."""

    coverage: float
    frequency: float

    @property
    def value(self) -> float:
        """A number between 0 and 2: the square makes one rare word worth more than two common ones."""
        return self.coverage**2 + FREQUENCY_SHARE * self.frequency / (1 + self.frequency)


def combine(score: Score, cosine: float | None, *, length: int) -> float:
    """Return the rank of a passage by its words and its meaning: about 1 for the best. `cosine` is None for a passage
    without a vector, `length` in characters. A long text has a lower cosine, as the mean of more words."""
    bonus = LENGTH_BONUS * min(1.0, length / FULL_LENGTH)
    return (cosine or 0.0) + bonus + WORDS_SHARE * score.coverage**2


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The words of a query in one passage."""

    counts: Mapping[str, int]
    """The number of occurrences of each form."""
    length: int
    """Number of different words of the passage."""

    def score(self, terms: Sequence[Term], rarities: Sequence[float]) -> tuple[Score, set[int]]:
        """Return the score of the passage, and the numbers of the terms that it has."""
        covered = wanted = frequency = 0.0
        found: set[int] = set()
        norm = SATURATION * (1 - LENGTH_SHARE + LENGTH_SHARE * self.length / USUAL_LENGTH)
        for number, term in enumerate(terms):
            count, share = self._find(term)
            if count:
                found.add(number)
                covered += rarities[number] * share
                frequency += rarities[number] * share * count * (SATURATION + 1) / (count + norm)
            if count or not term.is_whole:
                wanted += rarities[number]
        return Score(covered / wanted if wanted else 0.0, frequency), found

    def _find(self, term: Term) -> tuple[int, float]:
        """Return how often a term occurs, and how much of a match that is."""
        plain, *stems = term.forms
        if count := self.counts.get(plain, 0):
            return count, 1.0
        if count := max((self.counts.get(stem, 0) for stem in stems), default=0):
            return count, TYPO_SHARE if term.is_corrected else STEM_SHARE
        if term.prefix:
            return sum(count for word, count in self.counts.items() if word.startswith(term.prefix)), PREFIX_SHARE
        return 0, 0.0


def rarity(frequency: float, passages: float) -> float:
    """Return the weight of a term by the number of passages that have it."""
    return math.log1p((max(passages - frequency, 0.0) + 0.5) / (frequency + 0.5))


def has_phrases(words: Sequence[Iterable[str]], query: Query) -> bool:
    """Return whether a text with these words, each with its forms, has all phrases."""
    sets = [set(forms) for forms in words]
    return all(
        any(
            all(word in sets[start + step] for step, word in enumerate(phrase))
            for start in range(len(sets) - len(phrase) + 1)
        )
        for phrase in query.phrases
    )
