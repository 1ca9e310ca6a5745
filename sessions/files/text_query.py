"""Tokenizes texts and queries like Postgres' full-text search: in lower case, stemmed and without stop words."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache, lru_cache
from typing import Any

import msgspec

from models.field_types import UNSPACED_LETTERS, UNSPACED_SYLLABLES

SEARCHED_CHARACTERS = 200_000
"""Searched characters per text, as in Postgres."""
_ENGLISH = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers
herself it its itself they them their theirs themselves what which who whom this that these those am is are
was were be been being have has had having do does did doing a an the and but if or because as until while of
at by for with about against between into through during before after above below to from up down in out on
off over under again further then once here there when where why how all any both each few more most other
some such no nor not only own same so than too very s t can will just don should now
"""
STOP_WORDS = frozenset(_ENGLISH.split())
"""The English stop words of Postgres."""

_UNSPACED = re.compile(f"[{UNSPACED_SYLLABLES}{UNSPACED_LETTERS}]+")
_WORD = re.compile(r"[^\W_]+")
_PART = re.compile(r'(-?)(?:"([^"]*)"?|(\S+))')


class Token(msgspec.Struct, frozen=True):
    """A word at its position in a text."""

    start: int
    end: int
    plain: str
    stem: str
    """Empty for a stop word."""


class Text(msgspec.Struct, frozen=True):
    """A text prepared for searching."""

    tokens: Sequence[Token]
    places: dict[str, list[int]]
    """The numbers of the tokens of each word and stem."""

    def has(self, word: str, *, begins: bool) -> bool:
        """Return whether the text has the word, or with `begins` a word with this prefix."""
        return word in self.places or (begins and any(other.startswith(word) for other in self.places))


class _Phrase(msgspec.Struct, frozen=True):
    words: Sequence[tuple[int, str]]
    """The words, with their distances from the first."""
    is_unwanted: bool

    def matches(self, text: Text) -> bool:
        return self._is_in(text) != self.is_unwanted

    def _is_in(self, text: Text) -> bool:
        (first, word), *rest = self.words
        others = [(distance - first, set(text.places.get(other, ()))) for distance, other in rest]
        return any(all(at + step in places for step, places in others) for at in text.places.get(word, ()))


class TextQuery(msgspec.Struct, frozen=True):
    """A query: alternatives, each a list of phrases that must all match, as written or by their stems."""

    choices: Sequence[Sequence[_Phrase]]
    words: Sequence[str]
    """Words for matching any of them: their stems, or the stop words themselves in a query of nothing else."""

    def matches(self, text: Text) -> bool:
        """Return whether the text matches the whole query."""
        return any(all(phrase.matches(text) for phrase in choice) for choice in self.choices)


def has_any(text: str, words: Collection[str], beginnings: tuple[str, ...]) -> bool:
    """Return whether the text has any of the words or prefixes; much faster than tokenizing it."""
    forms = (form for word in set(_WORD.findall(_spaced(text))) for form in _forms(word))
    return any(form in words or form.startswith(beginnings) for form in forms)


def tokenize(text: str) -> Text:
    """Split a text into words."""
    tokens = list(_tokens(_spaced(text)))
    places: dict[str, list[int]] = {}
    for number, token in enumerate(tokens):
        places.setdefault(token.plain, []).append(number)
        if token.stem and token.stem != token.plain:
            places.setdefault(token.stem, []).append(number)
    return Text(tokens, places)


def parse_text_query(text: str, *, wanted: str, most_words: int) -> TextQuery:
    """Parse a query of words, "phrases", -unwanted and OR. `wanted` is the query without its unwanted terms."""
    parts = list(_PART.finditer(text))
    choices: list[list[_Phrase]] = []
    for forms in (_plain_words, _stems):
        choice: list[_Phrase] = []
        for part in parts:
            if part[0].lower() == "or":
                choices.append(choice)
                choice = []
                continue
            words = forms(part[2] if part[3] is None else part[3])
            if words:
                choice.append(_Phrase(words, bool(part[1])))
        choices.append(choice)
    tokens = list(_tokens(wanted))
    found = list(dict.fromkeys(token.stem for token in tokens if token.stem))
    found = found or list(dict.fromkeys(token.plain for token in tokens))
    longest = sorted(found, key=lambda word: len(word.encode()), reverse=True)[:most_words]
    return TextQuery([choice for choice in choices if choice], longest)


def nearness(text: Text, is_hit: Callable[[Token], bool]) -> float:
    """Return a rank below 1 that grows with the number of hits and falls with the length of the text."""
    hits = sum(is_hit(token) for token in text.tokens)
    weight = 0.1 * hits / (1 + math.log(max(len(text.tokens), 1)))
    return weight / (1 + weight)


def _spaced(text: str) -> str:
    """Return the beginning of the text, with spaces for scripts that are searched as substrings."""
    beginning = text[:SEARCHED_CHARACTERS]
    return beginning if beginning.isascii() else _UNSPACED.sub(lambda run: " " * len(run[0]), beginning)


def _tokens(text: str) -> Iterator[Token]:
    for match in _WORD.finditer(text):
        plain, stem = _forms(match[0])
        yield Token(match.start(), match.end(), plain, stem)


@lru_cache(maxsize=65_536)
def _forms(word: str) -> tuple[str, str]:
    """Return the word in lower case, and its stem. Cached, since stemming takes some 20 µs and words repeat."""
    plain = unicodedata.normalize("NFC", word).casefold()
    return plain, "" if plain in STOP_WORDS else _stemmer().stemWord(plain)


@cache
def _stemmer() -> Any:
    import snowballstemmer  # type: ignore[import-untyped]  # Imported here: it takes as long as most commands, which do not need it.

    return snowballstemmer.stemmer("english")


def _plain_words(text: str) -> list[tuple[int, str]]:
    return [(number, token.plain) for number, token in enumerate(_tokens(text))]


def _stems(text: str) -> list[tuple[int, str]]:
    return [(number, token.stem) for number, token in enumerate(_tokens(text)) if token.stem]
