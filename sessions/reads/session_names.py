"""Finds sessions by what people call them: words of the title, the context or the id, whatever their case and accents.

The Postgres store computes the same folded text itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

from sessions.reads.not_found import MOST_SUGGESTIONS, SIMILARITY

CONTEXT_LENGTH = 2_000
"""Characters of the context that are compared."""
MOST_WORDS = 20
MARKS = "[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670]"
"""Accents and vowel marks that people leave out when they type."""
SPELLINGS = {"ß": "ss", "ς": "σ"}
"""Lower-case letters with two spellings."""
TITLE_SIMILARITY = 75
"""Out of 100: titles share words more often than ids share letters."""
TITLE_LENGTH, TITLE_WORDS = 100, 12
"""Characters and words of a title that are compared with an id, so that a missing id delays nobody."""

_MARKS = re.compile(MARKS)
_WORD = re.compile(r"\w+")


def fold(text: str) -> str:
    """The text without case and accents."""
    folded = _MARKS.sub("", unicodedata.normalize("NFKD", text).lower())
    for letter, spelling in SPELLINGS.items():
        folded = folded.replace(letter, spelling)
    return folded


def words_of(query: str) -> list[str]:
    """The folded words that a session must contain, as parts of words."""
    return list(dict.fromkeys(fold(query.replace("\0", " ")).split()))[:MOST_WORDS]


def has_words(words: Iterable[str], *, session_id: str, title: str, context: str) -> bool:
    """Check whether the session contains all of the folded words."""
    text = fold(" ".join((session_id, title, context[:CONTEXT_LENGTH])))
    return all(word in text for word in words)


def nearest_sessions(wanted: str, titles: Mapping[str, str]) -> dict[str, str]:
    """Up to three sessions whose id or title is similar to the wanted id, the nearest first, with their titles.
    `titles` are those of known sessions by id, the most recently active first."""
    words = _WORD.findall(fold(wanted).replace("_", " "))
    scores = {session_id: _similarity(wanted, words, session_id, title) for session_id, title in titles.items()}
    best = sorted((name for name, score in scores.items() if score), key=lambda name: -scores[name])
    return {session_id: titles[session_id] for session_id in best[:MOST_SUGGESTIONS]}


def _similarity(wanted: str, words: list[str], session_id: str, title: str) -> float:
    from rapidfuzz import fuzz  # Imported here: few processes look for similar ids.

    by_id = fuzz.ratio(wanted, session_id, score_cutoff=SIMILARITY)
    others = _WORD.findall(fold(title[:TITLE_LENGTH]))[:TITLE_WORDS]
    by_title = fuzz.token_set_ratio(" ".join(words), " ".join(others), score_cutoff=TITLE_SIMILARITY)
    if len(words) == 1:
        by_title = max(fuzz.ratio(words[0], other, score_cutoff=TITLE_SIMILARITY) for other in [*others, ""])
    return max(by_id, by_title)
