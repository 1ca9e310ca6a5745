"""Finds regular expressions that take superlinear time, with texts generated from the expression itself by
repetition."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from re import _constants, _parser
from typing import Any, NamedTuple

SIZES = (16, 40, 100, 640)
"""Sizes of the first measurement. The small ones show exponential time, which would never end at the largest."""
GROWTH = 4
"""The factor from the first measurement to the second. A quadratic time grows by 16, a linear one by 4."""
MOST_GROWTH = 9.0
SECONDS_PER_CHARACTER = 0.25e-6
"""Texts that take less in the first measurement are not measured again."""
STUCK_SECONDS_PER_CHARACTER = 10e-6
"""Texts that take as much need no second measurement, which might not end."""
MOST_ATOMS = 12
MOST_HEADS = 10
COMMON = 'x \n"\\([/<`-0'
"""Candidates for a character that an expression does not exclude."""
FAILURES = ("", "\n\0")
"""Suffixes that make most expressions fail after trying everything."""
REPEATS = (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT)
NOTHING = (_constants.ASSERT, _constants.ASSERT_NOT, _constants.AT, _constants.GROUPREF)
"""Parts that match no text of their own."""


class Finding(NamedTuple):
    """A slow text for an expression: `prefix`, `pump` repeated many times, `suffix`."""

    prefix: str
    pump: str
    suffix: str
    seconds: dict[int, float]
    """Seconds by the length of the text."""


def find_superlinear(pattern: re.Pattern[Any], method: str) -> Finding | None:
    """Return the first text for which the time grows faster than the length, or None."""
    sampler = _Sampler(pattern)
    run = _runner(pattern, method)
    for prefix in sampler.heads():
        for pump in sampler.pumps(together=not prefix):
            for suffix in FAILURES:
                if seconds := _measure(run, lambda size: prefix + pump * (size // len(pump)) + suffix):  # noqa: B023
                    return Finding(prefix, pump, suffix, seconds)
    return None


def _measure(run: Callable[[str], object], make: Callable[[int], str]) -> dict[int, float] | None:
    """Return the times of two lengths, if they show superlinear growth."""
    for size in SIZES:
        small = make(size)
        enough = SECONDS_PER_CHARACTER * (len(small) + 200)
        started_at = time.perf_counter()  # Read faster than the time of the processor, which is never more.
        run(small)
        if time.perf_counter() - started_at < enough or (least := min(_seconds(run, small) for _ in range(3))) < enough:
            continue
        if least > STUCK_SECONDS_PER_CHARACTER * len(small):
            return {len(small): least}
        large = make(size * GROWTH)
        longest = least * MOST_GROWTH
        if min(_seconds(run, large) for _ in range(2)) > longest and (again := _seconds(run, large)) > longest:
            return {len(small): least, len(large): again}
    return None


def _seconds(run: Callable[[str], object], text: str) -> float:
    started_at = time.thread_time()
    run(text)
    return time.thread_time() - started_at


def _runner(pattern: re.Pattern[Any], method: str) -> Callable[[str], object]:
    call: Callable[..., Any] = getattr(pattern, method)
    before = [b"" if isinstance(pattern.pattern, bytes) else ""] if method in ("sub", "subn") else []

    def run(text: str) -> object:
        found = call(*before, text.encode("latin-1", "replace") if isinstance(pattern.pattern, bytes) else text)
        return deque(found, maxlen=0) if method == "finditer" else found

    return run


class _Sampler:
    """Generates texts that parts of an expression match."""

    def __init__(self, pattern: re.Pattern[Any]) -> None:
        self._tree = list(_parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE & ~re.DEBUG))
        literals = [argument for part in _parts(self._tree) for argument in _literals(part)]
        self._letters = list(dict.fromkeys([*map(chr, literals), *COMMON]))
        self._known: dict[int, list[str]] = {}

    def heads(self) -> list[str]:
        """Return the empty text, and texts that lead to each part of the expression."""
        starts = [self._tree[:end] for end in range(len(self._tree) + 1)]
        return list(dict.fromkeys(next(iter(self._samples(start)), "") for start in starts))[:MOST_HEADS]

    def pumps(self, *, together: bool) -> list[str]:
        """Return texts of each part, optionally of two parts together, and beginnings of a match of the whole
        expression, at which it may restart."""
        found = dict.fromkeys(text for part in _parts(self._tree) for text in self._samples(part)[:3] if text)
        atoms = sorted(dict.fromkeys([*found, *COMMON[:3]]), key=len)[:MOST_ATOMS]
        pairs = [one + other for one in atoms for other in atoms if one != other] if together else []
        wholes = self._samples(self._tree)[:2]
        begun = [whole[:end] for whole in wholes for end in range(1, len(whole) + 1, len(whole) // MOST_HEADS + 1)]
        return list(dict.fromkeys([*atoms, *begun, *pairs]))

    def _samples(self, tree: list[Any]) -> list[str]:
        texts = [""]
        for item in tree:
            texts = [text + more for text in texts[:4] for more in self._samples_of(item)[:4]]
        return texts[:6]

    def _samples_of(self, item: Any) -> list[str]:
        # The same items are parts of many sequences.
        if id(item) not in self._known:
            self._known[id(item)] = self._make_samples(item)
        return self._known[id(item)]

    def _make_samples(self, item: Any) -> list[str]:
        operator, argument = item
        if operator in NOTHING:
            return [""]
        if operator in REPEATS:
            return [text * max(argument[0], 1) for text in self._samples(list(argument[2]))]
        if inner := _inner(item):
            return [text for tree in inner for text in self._samples(tree)[:3]]
        return [letter for letter in self._letters if _matches(operator, argument, letter)] or [""]


def _parts(tree: list[Any]) -> Iterator[list[Any]]:
    """Yield each item of a sequence, the sequences within them, and the whole sequence."""
    for item in tree:
        yield [item]
        for inner in _inner(item):
            yield from _parts(inner)
    yield tree


def _inner(item: Any) -> list[list[Any]]:
    """Return the sequences within an item."""
    operator, argument = item
    if operator in REPEATS:
        return [list(argument[2])]
    if operator is _constants.SUBPATTERN:
        return [list(argument[3])]
    if operator is _constants.BRANCH:
        return [list(tree) for tree in argument[1]]
    if operator in (_constants.ASSERT, _constants.ASSERT_NOT):
        return [list(argument[1])]
    return [list(argument)] if operator is _constants.ATOMIC_GROUP else []


def _literals(part: list[Any]) -> Iterator[int]:
    """Return the characters that an item names."""
    for operator, argument in part:
        if operator in (_constants.LITERAL, _constants.NOT_LITERAL):
            yield argument
        elif operator is _constants.RANGE:
            yield argument[0]
        elif operator is _constants.IN:
            yield from _literals(argument)


def _matches(operator: Any, argument: Any, letter: str) -> bool:
    if operator is _constants.LITERAL:
        return bool(ord(letter) == argument)
    if operator is _constants.NOT_LITERAL:
        return bool(ord(letter) != argument)
    if operator is _constants.RANGE:
        return bool(argument[0] <= ord(letter) <= argument[1])
    if operator is _constants.CATEGORY:
        return _CATEGORIES[argument].match(letter) is not None
    if operator is _constants.IN:
        negated = argument[0][0] is _constants.NEGATE
        return any(_matches(kind, inner, letter) for kind, inner in argument[negated:]) != negated
    return operator is _constants.ANY


_CATEGORIES = {
    getattr(_constants, f"CATEGORY_{name}"): re.compile(expression)
    for name, expression in {
        "SPACE": r"\s",
        "NOT_SPACE": r"\S",
        "DIGIT": r"\d",
        "NOT_DIGIT": r"\D",
        "WORD": r"\w",
        "NOT_WORD": r"\W",
    }.items()
}
