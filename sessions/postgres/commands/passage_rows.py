"""Rows of the table of passages, with their words as a tsvector."""

from __future__ import annotations

from datetime import datetime

import msgspec

from sessions.search.passages import Passage
from sessions.search.stop_words import LANGUAGES, language_of
from sessions.search.words import LONGEST_WORD, compounds_in, numbers_in, placed_forms

LABEL_GAP = 10
"""Positions between the label and the text, so that no phrase is found across."""
MOST_KNOWN, MOST_KNOWN_LEXEMES = 10_000, 4
_KNOWN: dict[str, dict[str, tuple[str, ...]]] = {language: {} for language in LANGUAGES}
"""The lexemes of single words by language; words repeat. Numbers and identifiers rarely do, and would displace them; so
would clauses of scripts without spaces, of which each takes up to 10 kB."""


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
    """Return the text of a tsvector. Postgres merges the places of a word that is there repeatedly."""
    lexemes: list[str] = []
    position = _add_lexemes(passage.label, lexemes, 1)
    _add_lexemes(passage.text, lexemes, position + LABEL_GAP)
    return " ".join(lexemes)


def _add_lexemes(text: str, lexemes: list[str], position: int) -> int:
    """Add the forms of a text's words with their positions, counted from this one, and return the position after the
    last word."""
    language = language_of(text)
    known, add = _KNOWN[language], lexemes.append
    for compound in compounds_in(text):
        if (single := known.get(compound)) is not None:
            place = str(position)
            for lexeme in single:
                add(lexeme + place)
            position += 1
        else:
            words, found = _lexemes_of(compound, language)
            for offset, lexeme in found:
                add(f"{lexeme}{position + offset}")
            position += words
    for wholes in numbers_in(text).values():
        lexemes += [f"'{whole}':{position}" for whole in wholes]
    return position


def _lexemes_of(compound: str, language: str) -> tuple[int, list[tuple[int, str]]]:
    """Return the number of words of an identifier or word, and its lexemes, each with the number of its word. Plain
    ones have no quotes, which SQL would double, and Postgres would read twice."""
    words, found = placed_forms(compound, language)
    plain = compound.isascii()
    lexemes = [(n, f"{form}:" if plain and form.isalnum() else f"{quote(form)}:") for n, form in found]
    if words == 1 and len(lexemes) <= MOST_KNOWN_LEXEMES and len(compound) <= LONGEST_WORD and compound.isalpha():
        known = _KNOWN[language]
        if len(known) >= MOST_KNOWN:
            known.clear()
        known[compound] = tuple(lexeme for _, lexeme in lexemes)
    return words, lexemes
