"""Cuts the part of a passage that shows why it was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sessions.search.query import Query
from sessions.search.words import LONGEST_WORD, Word, split_words

MARK = "**"
SNIPPET_LENGTH = 400
"""Characters; short enough to be read aloud."""
FRAGMENT_LENGTH, FRAGMENTS = 170, 2
LEAD_LENGTH = 50
"""Characters before the first hit."""
MOST_BETWEEN = 3
"""Characters between two hits with shared marks."""

Hit = tuple[int, int, int]
"""Where a hit begins and ends, and the number of its term."""


class Snippet(NamedTuple):
    """What a hit shows of its text."""

    text: str
    start: int
    """Where in the text it begins."""


def snippet(text: str, query: Query) -> Snippet:
    """Return up to two fragments on one line, with the hits between marks; the beginning of a text without hits."""
    words = list(split_words(text))
    hits = list(_find_hits(text, words, query))
    if not hits:
        cut = "…" if len(text) > 2 * FRAGMENT_LENGTH else ""
        return Snippet(_one_line(text[: 2 * FRAGMENT_LENGTH]) + cut, 0)
    shown: set[int] = set()
    pieces: list[tuple[int, int]] = []
    left = hits
    while left and len(pieces) < FRAGMENTS:
        start, terms = _best_start([hit for hit in left if hit[2] not in shown] or left)
        if pieces and terms <= shown:
            break
        shown |= terms
        begin = _word_at(words, max(start - LEAD_LENGTH, 0))
        pieces.append((begin, min(start + FRAGMENT_LENGTH, len(text))))
        left = [hit for hit in left if hit[1] <= begin or hit[0] >= start + FRAGMENT_LENGTH]
    shown_pieces = [_marked(text, hits, begin, end) for begin, end in sorted(pieces)]
    first, last = min(pieces)[0], max(pieces)[1]
    return Snippet(("…" if first else "") + " … ".join(shown_pieces) + ("…" if last < len(text) else ""), first)


def _find_hits(text: str, words: Sequence[Word], query: Query) -> Iterator[Hit]:
    found: dict[tuple[tuple[str, ...], tuple[str, ...]], list[tuple[int, bool]]] = {}
    for word in words:
        forms = word.forms, word.wholes
        if forms not in found:  # Most words of a text are in it several times.
            found[forms] = [
                (number, any(map(term.finds, word.forms)))
                for number, term in enumerate(query.terms)
                if any(map(term.finds, (*word.forms, *word.wholes)))
            ]
        for number, is_word in found[forms]:
            yield word.start, word.end if is_word else _end_of_whole(text, word), number


def _best_start(hits: Sequence[Hit]) -> tuple[int, set[int]]:
    """Return where the first fragment with the most terms begins, and its terms. Passes over the hits once."""
    best, terms = hits[0][0], {hits[0][2]}
    inside: Counter[int] = Counter()
    first = 0
    for start, end, number in hits:
        inside[number] += 1
        while end > hits[first][0] + FRAGMENT_LENGTH and hits[first][0] < start:
            _take_out(inside, hits[first][2])
            first += 1
        if len(inside) > len(terms):
            best, terms = hits[first][0], set(inside)
    return best, terms


def _take_out(inside: Counter[int], number: int) -> None:
    inside[number] -= 1
    if not inside[number]:
        del inside[number]


def _word_at(words: Sequence[Word], place: int) -> int:
    """Return where the first word from this place begins."""
    return next((word.start for word in words if word.start >= place), place)


def _marked(text: str, hits: Sequence[Hit], begin: int, end: int) -> str:
    pieces: list[str] = []
    at = begin
    open_until = -1
    for start, stop, _ in hits:
        if stop <= begin or start >= end or stop <= open_until:
            continue
        first, last = max(start, begin), min(stop, end)
        if open_until >= 0 and _is_joined(text[open_until:first]):
            pieces.append(text[at:last])
        else:
            if open_until >= 0:
                pieces.append(MARK)
            pieces += [text[at:first], MARK, text[first:last]]
        at = open_until = last
    if open_until >= 0:
        pieces.append(MARK)
    pieces.append(text[at:end])
    return _one_line("".join(pieces))


def _end_of_whole(text: str, word: Word) -> int:
    """Return where the identifier ends that begins with a word."""
    rest = text[word.end : word.end + LONGEST_WORD].split(maxsplit=1)
    is_apart = text[word.end : word.end + 1].isspace()
    return word.end if is_apart or not rest else word.end + len(rest[0].rstrip(".,;:!?()[]{}"))


def _is_joined(between: str) -> bool:
    """Return whether two hits share their marks: pairs of syllables overlap, and identifiers have punctuation."""
    return len(between) <= MOST_BETWEEN and not any(letter.isspace() or letter.isalnum() for letter in between)


def _one_line(text: str) -> str:
    return " ".join(text.split())
