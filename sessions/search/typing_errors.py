"""Words that differ from a mistyped one by a letter."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence

from sessions.search.query import Term

SHORTEST, LONGEST = 5, 24
"""Letters; shorter words have too many neighbours, and each letter more has 54 to look up."""
MOST_CORRECTED = 2
"""Words of a query, the longest: looking up the neighbours of each takes several milliseconds."""
_LETTERS = string.ascii_lowercase


def neighbours(word: str) -> Iterator[str]:
    """Yield the words with one letter more, less or changed, or with two letters swapped."""
    letters = sorted({*_LETTERS, *word})
    for place in range(len(word) + 1):
        head, tail = word[:place], word[place:]
        for letter in letters:
            yield f"{head}{letter}{tail}"
            if tail:
                yield f"{head}{letter}{tail[1:]}"
        if tail:
            yield head + tail[1:]
        if len(tail) > 1:
            yield head + tail[1] + tail[0] + tail[2:]


def mistyped(terms: Sequence[Term], frequencies: Sequence[float]) -> dict[int, Term]:
    """Return the terms that no text has, and that may be mistyped, by their numbers."""
    unknown = [
        (number, term)
        for number, term in enumerate(terms)
        if not frequencies[number]
        and not term.is_whole
        and SHORTEST <= len(term.forms[0]) <= LONGEST
        and term.forms[0].isalpha()
    ]
    return dict(sorted(unknown, key=lambda item: -len(item[1].forms[0]))[:MOST_CORRECTED])
