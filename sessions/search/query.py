"""Parses a search query: words, "phrases", -unwanted and OR. Any text is a query."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from sessions.search.stop_words import LANGUAGES, STOP_WORDS
from sessions.search.words import Word, split_words

MOST_TERMS = 24
"""Words that are searched, the longest ones: ranking by more takes long, and says little."""
LONGEST_PHRASE = 24
"""Words of a phrase that are compared."""
PREFIX_LENGTH = 4
"""Letters of a word that also matches as a prefix: "post" finds "posts", but "to" should not find "tomorrow"."""
FLAG_LENGTH = 3
"""Letters after a dash that make a flag, as in `rm -rf`; a longer word after a dash is unwanted."""

_PART = re.compile(r'(?:(?<=\s)|^)(-?)"([^"]*)"?|(\S+)')
_UNWANTED = re.compile(rf"-(?=[^\W\d_])\w{{{FLAG_LENGTH + 1},}}")


class Term(msgspec.Struct, frozen=True):
    """A word of a query: a text has it if it has one of the forms, or a word that begins with the prefix."""

    forms: tuple[str, ...]
    prefix: str = ""
    is_whole: bool = False
    """An identifier without its punctuation, whose parts are terms, too: it raises the rank, but is not required."""
    is_part: bool = False
    """A word of an identifier."""
    is_corrected: bool = False
    """The forms after the first are words that differ from it by a typing error."""

    def finds(self, word: str) -> bool:
        """Return whether a word of a text is a hit."""
        return word in self.forms or bool(self.prefix and word.startswith(self.prefix))


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed query."""

    terms: Sequence[Term]
    """All words that are wanted, without repetitions."""
    choices: Sequence[Sequence[int]]
    """The alternatives between ORs: the numbers of the terms that a full match has."""
    phrases: Sequence[Sequence[str]]
    """Words of which a full match has each sequence."""
    unwanted: Sequence[Sequence[str]]
    """Words, or sequences of words, that no hit has."""

    def is_full(self, found: set[int]) -> bool:
        """Return whether a text with these terms is a full match, apart from the phrases."""
        return any(found.issuperset(choice) for choice in self.choices)


def parse_query(text: str) -> Query:
    """Parse any text as a query. Words that every text has count only in a query of nothing else."""
    terms: dict[Term, int] = {}
    choices: list[list[int]] = [[]]
    phrases: list[list[str]] = []
    unwanted: list[list[str]] = []
    wanted: list[str] = []
    for sign, phrase, word in _parts(text):
        if not phrase and word.upper() == "OR":
            choices.append([])
            continue
        words = list(_words(phrase or word))
        if sign:
            unwanted.append([item.forms[0] for item in words])
            continue
        wanted.append(phrase or word)
        if phrase and len(words) > 1:
            phrases.append([item.forms[0] for item in words[:LONGEST_PHRASE]])
        is_identifier = not phrase and any(item.wholes for item in words)
        for item in words:
            prefix = item.forms[0] if len(item.forms[0]) >= PREFIX_LENGTH else ""
            choices[-1].append(terms.setdefault(Term(item.forms, prefix, is_part=is_identifier), len(terms)))
    for whole in (whole for item in split_words(" ".join(wanted), LANGUAGES) for whole in item.wholes):
        terms.setdefault(Term((whole,), is_whole=True), len(terms))
    return _without_stop_words(list(terms), choices, phrases=phrases, unwanted=unwanted)


def _parts(text: str) -> Iterator[tuple[bool, str, str]]:
    """Yield the parts: whether each is unwanted, its phrase, or else its word."""
    for part in _PART.finditer(text):
        dash, phrase, word = part[1] or "", part[2], part[3] or ""
        if phrase is not None:
            yield bool(dash), phrase, ""
        else:
            is_unwanted = bool(_UNWANTED.match(word))
            yield is_unwanted, "", word[1:] if is_unwanted else word


def _words(text: str) -> list[Word]:
    """Return the words of a part, without the shorter pieces at the end of a script without spaces."""
    words = list(split_words(text, LANGUAGES))
    return [word for number, word in enumerate(words) if not (number and words[number - 1].end == word.end)]


def _without_stop_words(
    terms: Sequence[Term], choices: Sequence[Sequence[int]], *, phrases: list[list[str]], unwanted: list[list[str]]
) -> Query:
    """Drop stop words, if there are other words, and the shortest of too many."""
    kept = [number for number, term in enumerate(terms) if term.forms[0] not in STOP_WORDS] or range(len(terms))
    kept = sorted(sorted(kept, key=lambda number: -len(terms[number].forms[0]))[:MOST_TERMS])
    places = {number: place for place, number in enumerate(kept)}
    left = [sorted({places[number] for number in choice if number in places}) for choice in choices]
    return Query(
        terms=[terms[number] for number in kept],
        choices=[choice for choice in left if choice],
        phrases=phrases,
        unwanted=[words for words in unwanted if words],
    )
