"""Parses search queries into words and runs of scripts written without spaces, and marks these in a text. Pure."""

from __future__ import annotations

import re
import unicodedata

import msgspec

from models.field_types import UNSPACED_LETTERS, UNSPACED_SYLLABLES

MOST_NEEDLES = 64
"""Runs and parts of runs to search for: each is searched in every candidate."""
MOST_WORDS = 20
"""Words of which any may match, the longest ones; ranking large texts by more of them takes seconds."""
BEGINNING_LENGTH = 4
"""Letters of a word that also matches as a prefix: "post" finds "posts", but "to" should not find "tomorrow"."""
SNIPPET_LENGTH = 400
"""Characters; short enough to be read aloud."""
MARK = "**"

_RUN = re.compile(f"[{UNSPACED_SYLLABLES}]+|[{UNSPACED_LETTERS}]+")
_LETTER = re.compile(f"[{UNSPACED_LETTERS}]")
_DASHES = re.compile(r'(?<!\w)-(?:[^\w"]*-)+')
"""Runs of dashes. Postgres nests a negation for each dash, at most 32 deep."""
_UNWANTED = re.compile(r'(?:^|(?<=\s))-(?:"[^"]*"?|\S+)')


class ParsedQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed query."""

    text: str
    """The query without the runs, in web search syntax: "phrases", OR, -unwanted."""
    wanted: str
    """The same without the unwanted terms."""
    unwanted: list[str]
    """Words and "phrases" that must not occur, even in partial matches."""
    runs: list[str]
    parts: list[str]
    """Pairs of syllables (or groups of four letters) of the runs, which have no word boundaries."""

    @property
    def needles(self) -> list[str]:
        """Runs and parts, best first."""
        return list(dict.fromkeys([*self.runs, *self.parts]))


def parse_query(query: str) -> ParsedQuery:
    """Parse any text as a query; terms without meaning are dropped."""
    text = _DASHES.sub("-", unicodedata.normalize("NFC", query.replace("\0", " ")))
    wanted = _UNWANTED.sub(" ", text)
    runs = list(dict.fromkeys(_RUN.findall(wanted)))[:MOST_NEEDLES]
    parts = list(dict.fromkeys(part for run in runs for part in _parts_of(run)))[:MOST_NEEDLES]
    spaced = _without_runs(text)
    unwanted = [term[1:] for term in _UNWANTED.findall(spaced)][:MOST_WORDS]
    return ParsedQuery(text=spaced, wanted=_without_runs(wanted), unwanted=unwanted, runs=runs, parts=parts)


def any_of(lexemes: list[str]) -> list[str]:
    """A tsquery for each of the longest lexemes; those that are long enough also match as prefixes."""
    longest = sorted(lexemes, key=len, reverse=True)[:MOST_WORDS]
    quoted = {word: "'" + word.replace("\\", "\\\\").replace("'", "''") + "'" for word in longest}
    return [f"{text}:*" if len(word) >= BEGINNING_LENGTH else text for word, text in quoted.items()]


def mark(text: str, needles: list[str]) -> str:
    """The text with each occurrence of a needle between marks; adjoining occurrences share one pair."""
    marked = [False] * len(text)
    for needle in needles:
        at = text.find(needle)
        while at >= 0:
            marked[at : at + len(needle)] = [True] * len(needle)
            at = text.find(needle, at + 1)
    pieces: list[str] = []
    for index, character in enumerate(text):
        if marked[index] != (index > 0 and marked[index - 1]):
            pieces.append(MARK)
        pieces.append(character)
    return "".join(pieces) + (MARK if text and marked[-1] else "")


def normalize_marks(snippet: str) -> str:
    """The snippet on one line, cut around its first mark."""
    line = " ".join(snippet.split())
    if len(line) <= SNIPPET_LENGTH:
        return line
    start = max(line.find(MARK) - SNIPPET_LENGTH // 4, 0)
    piece = line[start : start + SNIPPET_LENGTH].rstrip("*")
    return ("…" if start else "") + piece + (MARK if piece.count(MARK) % 2 else "") + "…"


def _without_runs(text: str) -> str:
    return _DASHES.sub("-", _RUN.sub(" ", text))


def _parts_of(run: str) -> list[str]:
    length = 4 if _LETTER.match(run) else 2
    return [run[start : start + length] for start in range(max(len(run) - length, 0) + 1)]
