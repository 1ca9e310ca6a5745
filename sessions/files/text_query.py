"""Words of texts and questions, as full-text search in Postgres takes them: in lower case, without stop words, stemmed.
Pure."""

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
"""Of one text, as in Postgres."""
_ENGLISH = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers
herself it its itself they them their theirs themselves what which who whom this that these those am is are
was were be been being have has had having do does did doing a an the and but if or because as until while of
at by for with about against between into through during before after above below to from up down in out on
off over under again further then once here there when where why how all any both each few more most other
some such no nor not only own same so than too very s t can will just don should now
"""
STOP_WORDS = frozenset(_ENGLISH.split())
"""Those of English in Postgres."""

_UNSPACED = re.compile(f"[{UNSPACED_SYLLABLES}{UNSPACED_LETTERS}]+")
_WORD = re.compile(r"[^\W_]+")
_PART = re.compile(r'(-?)(?:"([^"]*)"?|(\S+))')


class Token(msgspec.Struct, frozen=True):
    """A word where it stands in a text."""

    start: int
    end: int
    plain: str
    stem: str
    """Empty for a stop word."""


class Text(msgspec.Struct, frozen=True):
    """A text, ready to be searched."""

    tokens: Sequence[Token]
    places: dict[str, list[int]]
    """Of each word and each stem, the numbers of the tokens that are it."""

    def has(self, word: str, *, begins: bool) -> bool:
        """Whether the word is there, or one that begins so."""
        return word in self.places or (begins and any(other.startswith(word) for other in self.places))


class _Phrase(msgspec.Struct, frozen=True):
    words: Sequence[tuple[int, str]]
    """With their distances from the first."""
    is_unwanted: bool

    def matches(self, text: Text) -> bool:
        return self._is_in(text) != self.is_unwanted

    def _is_in(self, text: Text) -> bool:
        (first, word), *rest = self.words
        others = [(distance - first, set(text.places.get(other, ()))) for distance, other in rest]
        return any(all(at + step in places for step, places in others) for at in text.places.get(word, ()))


class TextQuery(msgspec.Struct, frozen=True):
    """What is asked for: any of some lists of phrases, of which all must be there, as they are or by their stems."""

    choices: Sequence[Sequence[_Phrase]]
    words: Sequence[str]
    """Of which any will do, the stems if there are any; only stop words stand for themselves."""

    def matches(self, text: Text) -> bool:
        """Whether all is there that is asked for."""
        return any(all(phrase.matches(text) for phrase in choice) for choice in self.choices)


def has_any(text: str, words: Collection[str], beginnings: tuple[str, ...]) -> bool:
    """Whether any of the words, or one that begins so, is in the text: much faster than reading it."""
    forms = (form for word in set(_WORD.findall(_spaced(text))) for form in _forms(word))
    return any(form in words or form.startswith(beginnings) for form in forms)


def tokenize(text: str) -> Text:
    """The words of a text."""
    tokens = list(_tokens(_spaced(text)))
    places: dict[str, list[int]] = {}
    for number, token in enumerate(tokens):
        places.setdefault(token.plain, []).append(number)
        if token.stem and token.stem != token.plain:
            places.setdefault(token.stem, []).append(number)
    return Text(tokens, places)


def parse_text_query(text: str, *, wanted: str, most_words: int) -> TextQuery:
    """What was typed: words, "phrases", -unwanted, OR. `wanted` is the same without what is unwanted."""
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
    """Below 1; more for a text in which more of the words are hits, less for a long one."""
    hits = sum(is_hit(token) for token in text.tokens)
    weight = 0.1 * hits / (1 + math.log(max(len(text.tokens), 1)))
    return weight / (1 + weight)


def _spaced(text: str) -> str:
    """What is searched by words: the beginning, with blanks for scripts that are searched as text."""
    beginning = text[:SEARCHED_CHARACTERS]
    return beginning if beginning.isascii() else _UNSPACED.sub(lambda run: " " * len(run[0]), beginning)


def _tokens(text: str) -> Iterator[Token]:
    for match in _WORD.finditer(text):
        plain, stem = _forms(match[0])
        yield Token(match.start(), match.end(), plain, stem)


@lru_cache(maxsize=65_536)
def _forms(word: str) -> tuple[str, str]:
    """In lower case, and its stem. Stemming takes some 20 µs, and texts are made of the same words."""
    plain = unicodedata.normalize("NFC", word).casefold()
    return plain, "" if plain in STOP_WORDS else _stemmer().stemWord(plain)


@cache
def _stemmer() -> Any:
    import snowballstemmer  # type: ignore[import-untyped]  # It takes as long as most commands, which need no words.

    return snowballstemmer.stemmer("english")


def _plain_words(text: str) -> list[tuple[int, str]]:
    return [(number, token.plain) for number, token in enumerate(_tokens(text))]


def _stems(text: str) -> list[tuple[int, str]]:
    return [(number, token.stem) for number, token in enumerate(_tokens(text)) if token.stem]
