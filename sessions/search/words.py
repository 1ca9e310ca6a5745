"""Splits texts into normalized words, for indexing and for queries.

A word is found in any case, with or without accents, by its stem in the language of the text, as a whole and by its
parts: `getUserName`, `src/app/main.py`, `v1.2.3`, `0664 555 0137` and `Optional<Invoice>`. Scripts written without
spaces are split into pairs of syllables.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import accumulate, chain, groupby
from typing import Any, NamedTuple

from models.field_types import UNSPACED_LETTERS, UNSPACED_SYLLABLES
from sessions.search.stop_words import STOP_WORDS, language_of

LONGEST_WORD = 64
"""Characters of a word that are indexed; longer ones are rarely typed, and could fill the index."""
NORMALIZED = 2 * LONGEST_WORD
"""Characters of a word that are read: the normalization of many combining marks takes quadratic time."""
MOST_PARTS = 12
"""An identifier with more parts, such as encoded data, is indexed by its parts only; camelCase as a whole only."""
MOST_MIXED_PARTS = 4
"""A run of letters and digits with more parts is a hash or a random id, whose parts say nothing."""
SYLLABLES_TOGETHER, LETTERS_TOGETHER = 2, 4
"""Length of the pieces of scripts written without spaces."""
SHORTEST_INFLECTED = 3
"""Letters of a word that has a stem."""
PHONE_DIGITS = 7
"""Last digits by which a long number is found, with or without its prefixes."""


class Word(NamedTuple):
    """A word at its place in a text."""

    start: int
    end: int
    forms: tuple[str, ...]
    """The word and its stem. A text has the word if it has one of them."""
    wholes: tuple[str, ...] = ()
    """Forms of the identifier or number that begins here, without punctuation; empty for an ordinary word."""


_SEPARATORS = (
    r"\s\x00-/:-@\[-`{-\xa9\xab-\xb1\xb4\xb6-\xb8\xbb\xbf\xd7\xf7\u02d0-\u02df\u05be\u060c\u061b\u061f\u066a-\u066d"
    r"\u06d4\u0964\u0965\u1680\u2000-\u203e\u2041-\u206f\u20a0-\u20cf\u2190-\u23ff\u2500-\u259f\u27e6-\u27ef"
    r"\u2900-\u2bff\u3000-\u3004\u3008-\u3020\u3030\u303d\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\ufffd"
)
"""White space, punctuation and symbols, but not emoji, which are words."""
_RUN = f"[^{_SEPARATORS}]+"
_COMPOUND = re.compile(rf"{_RUN}(?:(?:[-._/:@+#'’&<>=~\\]{{1,3}}|(?<=\d),(?=\d)){_RUN})*")
_RUNS = re.compile(_RUN)
_NUMBER = re.compile(r"(?<!\d)\d+(?:[-. /()]{1,2}\d+)+")
_GROUPS = re.compile(r"\d[-. /()]{1,2}\d")
"""A part of each such number: most texts have none, and it is found faster."""
_BOUNDARIES = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])")
_UNSPACED = re.compile(f"([{UNSPACED_SYLLABLES}]+)|[{UNSPACED_LETTERS}]+")
_IGNORED_MARKS = re.compile("[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed]+")
"""Accents and vowel marks that people leave out when they type, in Latin, Greek, Cyrillic, Hebrew and Arabic."""


def split_words(text: str, languages: tuple[str, ...] = ()) -> Iterator[Word]:
    """Yield the words of a text in order; the parts of an identifier one by one. `languages` are those of the stems, by
    default the language of the text."""
    languages = languages or (language_of(text),)
    numbers = numbers_in(text)
    for compound in _COMPOUND.finditer(text):
        offset, more = compound.start(), numbers.get(compound.start(), ())
        for at, piece, wholes in _pieces_of(compound[0]):
            start = offset + at
            yield Word(start, start + len(piece), forms_of(piece, languages), (*wholes, *more))
            more = ()


def compounds_in(text: str) -> list[str]:
    """Return the identifiers and words of a text, in order. `placed_forms` finds the words of each."""
    return _COMPOUND.findall(text)


def placed_forms(compound: str, language: str) -> tuple[int, list[tuple[int, str]]]:
    """Return the number of words of an identifier or word, and its forms, each with the number of its word: the same
    forms as those of `split_words`."""
    pieces, languages = _pieces_of(compound), (language,)
    found: list[tuple[int, str]] = []
    for number, (_, piece, wholes) in enumerate(pieces):
        forms = forms_of(piece, languages)
        found += [(number, form) for form in (dict.fromkeys((*forms, *wholes)) if wholes else forms)]
    return len(pieces), found


def numbers_in(text: str) -> dict[int, tuple[str, ...]]:
    """Return numbers with groups of digits, by their place: all digits, and the last ones of a phone number."""
    found: dict[int, tuple[str, ...]] = {}
    if not _GROUPS.search(text):
        return found
    for match in _NUMBER.finditer(text):
        if match.end() - match.start() <= PHONE_DIGITS:
            continue
        digits = re.sub(r"\D", "", match[0])
        if PHONE_DIGITS <= len(digits) <= LONGEST_WORD:
            found[match.start()] = tuple(dict.fromkeys((digits, digits[-PHONE_DIGITS:])))
    return found


def forms_of(word: str, languages: tuple[str, ...]) -> tuple[str, ...]:
    """Return the word without case and accents, and its stems that differ from it."""
    if word.isdigit() and word.isascii():
        return (word[:LONGEST_WORD],)
    return _stems_of(word[:NORMALIZED], languages)  # Uncut, encoded data would fill the memory.


@lru_cache(maxsize=65_536)
def _stems_of(word: str, languages: tuple[str, ...]) -> tuple[str, ...]:
    """Cached, since words repeat; numbers do not, and would displace them."""
    plain = normalize(word)
    if len(plain) < SHORTEST_INFLECTED or not plain.isalpha() or plain in STOP_WORDS:
        return (plain,)
    return tuple(dict.fromkeys((plain, *(_stemmer(language).stemWord(plain) for language in languages))))


def normalize(word: str) -> str:
    """Return the beginning of a word without case, accents, or variants of its letters."""
    if word.isascii():
        return word[:LONGEST_WORD].lower()
    folded = unicodedata.normalize("NFKC", word[:NORMALIZED]).casefold()
    bare = _IGNORED_MARKS.sub("", unicodedata.normalize("NFD", folded))
    return unicodedata.normalize("NFC", bare)[:LONGEST_WORD] or folded[:LONGEST_WORD]


def fold(text: str) -> str:
    """Return a text without case and accents, of about the same length, to look for parts of normalized words in it."""
    if text.isascii():
        return text.lower()
    # Sorted before, because the normalization of many combining marks out of order takes quadratic time.
    runs = groupby(text, key=lambda letter: unicodedata.combining(letter) > 0)
    in_order = "".join(
        chain.from_iterable(sorted(run, key=unicodedata.combining) if mark else run for mark, run in runs)
    )
    bare = _IGNORED_MARKS.sub("", unicodedata.normalize("NFD", unicodedata.normalize("NFKC", in_order).casefold()))
    return unicodedata.normalize("NFC", bare)


def _pieces_of(compound: str) -> list[tuple[int, str, tuple[str, ...]]]:
    """Return the words of an identifier or word, each with its place, and the forms of the wholes that begin there."""
    if compound.isascii() and (compound.isdigit() or (compound.isalpha() and compound[1:].islower())):
        return [(0, compound, ())]  # An ordinary word, and most are.
    runs = _RUNS.findall(compound)
    wholes = (normalize("".join(runs)),) if 1 < len(runs) <= MOST_PARTS else ()
    pieces: list[tuple[int, str, tuple[str, ...]]] = []
    at = 0
    for run in runs:
        at = compound.index(run, at)
        whole, parts = _split_run(run)
        if whole is not None:
            wholes = tuple(dict.fromkeys((whole, *wholes)))
        for start, part in parts:
            pieces.append((at + start, part, wholes))
            wholes = ()
        at += len(run)
    return pieces


def _split_run(run: str) -> tuple[str | None, list[tuple[int, str]]]:
    """Return the words of a run of letters and digits with their places, and the form of the run if it is a whole."""
    if not run.isascii() and _UNSPACED.search(run):
        return None, [(start, run[start:end]) for start, end in _unspaced_parts(run)]
    parts = [run] if run.isdigit() or (run.isalpha() and run.islower()) else _BOUNDARIES.split(run)
    if not 1 < len(parts) <= (MOST_PARTS if run.isalpha() else MOST_MIXED_PARTS):
        return None, [(0, run)]
    starts = accumulate(map(len, parts), initial=0)
    return normalize(run), list(zip(starts, parts, strict=False))


def _unspaced_parts(run: str) -> Iterator[tuple[int, int]]:
    """Yield the places of overlapping pieces of scripts without spaces, and of the words of other scripts between."""
    at = 0
    for match in _UNSPACED.finditer(run):
        if match.start() > at:
            yield at, match.start()
        at = match.end()
        length = SYLLABLES_TOGETHER if match[1] else LETTERS_TOGETHER
        # The last pieces are shorter, so that each letter begins one.
        for start in range(match.start(), at):
            yield start, min(start + length, at)
    if at < len(run):
        yield at, len(run)


@cache
def _stemmer(language: str) -> Any:
    import Stemmer  # Imported here: most commands of session-cli need none.

    return Stemmer.Stemmer(language)
