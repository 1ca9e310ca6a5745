"""Full-text search in the JSON store: hits with all words first, then those with any, ranked and shown as in Postgres.

It works without an index: every document is read, which takes about a second for a few hundred megabytes.
"""

from __future__ import annotations

import heapq
import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain, groupby
from typing import Any

import msgspec

from models.commands.definitions import Search
from sessions.files.session_file import SessionFile
from sessions.files.session_reader import SessionReader
from sessions.files.text_query import Text, TextQuery, Token, has_any, nearness, parse_text_query, tokenize
from sessions.reads.pagination import decode_cursor, fill
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import Page
from sessions.reads.search_hits import MOST_HITS, SMALLEST_HIT, Match, Position, hit_item
from sessions.reads.search_query import (
    BEGINNING_LENGTH,
    MARK,
    MOST_WORDS,
    ParsedQuery,
    mark,
    normalize_marks,
    parse_query,
)
from sessions.rules.records import search_text

CONTEXT_CHARACTERS = 60
"""Characters before a substring in its snippet."""
FRAGMENTS, FRAGMENT_WORDS = 2, 30
"""The number of fragments in a snippet, and of words in each."""
MOST_PLACES = 1_000
"""Hits in a text that are considered for the best fragments."""

_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    area: str
    session_id: str
    id: str
    at: datetime
    type: str | None = None
    name: str | None = None
    tags: frozenset[str] = frozenset()


class _Hit(msgspec.Struct, frozen=True, kw_only=True):
    found: _Found
    rank: float

    @property
    def order(self) -> tuple[Any, ...]:
        """The sort key: the best first, then the latest."""
        found = self.found
        age = -((found.at - _BEGINNING) // timedelta(microseconds=1))
        return (-self.rank, age, found.area, found.session_id, found.id)


class _Query:
    """A parsed query that matches, ranks and excerpts texts."""

    def __init__(self, q: str) -> None:
        self.parsed: ParsedQuery = parse_query(q)
        self.question: TextQuery = parse_text_query(self.parsed.text, wanted=self.parsed.wanted, most_words=MOST_WORDS)
        self._unwanted = [parse_text_query(term, wanted="", most_words=0) for term in self.parsed.unwanted]
        self._words = frozenset(self.question.words)
        self._beginnings = tuple(word for word in self.question.words if len(word.encode()) >= BEGINNING_LENGTH)
        # A query may also match texts that lack a word.
        self._needs_a_word = bool(self._words) and self.parsed.text == self.parsed.wanted

    def match(self, text: str) -> tuple[Match, float] | None:
        """Return whether the text matches fully or partially, with its rank; None without a match."""
        text = normal(text)
        parsed, question = self.parsed, self.question
        parts = sum(part in text for part in parsed.parts)
        if self._needs_a_word and not parts and not has_any(text, self._words, self._beginnings):
            return None
        words = tokenize(text)
        every = [run in text for run in parsed.runs]
        if question.choices:
            every.append(question.matches(words))
        known = sum(words.has(word, begins=word in self._beginnings) for word in question.words)
        if not every or not (all(every) or parts or known):
            return None
        if not all(every) and any(term.matches(words) for term in self._unwanted):
            return None
        rank = known + parts + (nearness(words, self.is_hit) if known else 0.0)
        return ("all" if all(every) else "partial"), rank

    def is_hit(self, token: Token) -> bool:
        """Return whether a token is one of the query's words."""
        return any(form in self._words or form.startswith(self._beginnings) for form in (token.plain, token.stem))

    def snippet(self, text: str) -> str:
        """Return the excerpt of the text that shows the match."""
        text = normal(text)
        for needle in self.parsed.needles:
            if (at := text.find(needle)) >= 0:
                start = max(at - CONTEXT_CHARACTERS, 0)
                return normalize_marks(mark(text[start : start + 3 * CONTEXT_CHARACTERS], self.parsed.needles))
        return normalize_marks(headline(text, tokenize(text), self.is_hit))


def search(reader: SessionReader, command: Search, read_scope: ReadScope) -> Page:
    """Return hits, the best first; `match` tells whether a hit has all words or only some."""
    query = _Query(command.q)
    start = decode_cursor(command.cursor, Position) or Position(match="all", offset=0)
    limit = min(command.limit, command.max_characters // SMALLEST_HIT + 1)
    hits = _hits(reader, command, query, start=start, limit=limit, read_scope=read_scope)
    return fill(hits, limit=limit, room=command.max_characters)


def _hits(
    reader: SessionReader, command: Search, query: _Query, *, start: Position, limit: int, read_scope: ReadScope
) -> Iterator[tuple[Position, dict[str, Any]]]:
    best = _rank(reader, command, query, read_scope=read_scope, most=min(start.offset + limit + 1, MOST_HITS))
    wanted = limit + 1
    matches: tuple[Match, ...] = ("all", "partial") if start.match == "all" else ("partial",)
    for match in matches:
        offset = start.offset if match == start.match else 0
        for hit in best[match][offset : offset + wanted]:
            offset += 1
            contents = reader.find(hit.found.session_id)
            try:
                snippet = query.snippet(_text_of(contents, hit.found)) if contents else ""
            except KeyError:  # Removed in the meantime.
                continue
            if contents is None or contents.session is None:
                continue
            wanted -= 1
            columns = {**msgspec.structs.asdict(hit.found), "rank": hit.rank, "session_title": contents.session.title}
            yield Position(match=match, offset=offset), hit_item(columns, snippet=snippet, match=match)


def _rank(
    reader: SessionReader, command: Search, query: _Query, *, read_scope: ReadScope, most: int
) -> dict[Match, list[_Hit]]:
    """Return the best hits, without their texts."""
    found: dict[Match, list[_Hit]] = {"all": [], "partial": []}
    is_wanted = _filter(command, read_scope)
    for contents in reader.within(read_scope):
        for place in filter(is_wanted, _places(contents, command)):
            result = query.match(_text_of(contents, place))
            if result:
                match, rank = result
                found[match].append(_Hit(found=place, rank=rank))
        for match, hits in found.items():
            if len(hits) > 2 * most:
                found[match] = heapq.nsmallest(most, hits, key=lambda hit: hit.order)
    return {match: heapq.nsmallest(most, hits, key=lambda hit: hit.order) for match, hits in found.items()}


def _filter(command: Search, read_scope: ReadScope) -> Callable[[_Found], bool]:
    during, tags = read_scope.during(command), set(command.tags)
    return lambda place: (
        command.type in (None, place.type) and (not tags or not tags.isdisjoint(place.tags)) and during(place.at)
    )


def _places(contents: SessionFile, command: Search) -> Iterator[_Found]:
    areas = set(command.areas or ("conversations", "memories", "artifacts"))
    make = partial(_Found, session_id=contents.session_id)
    if "conversations" in areas:
        for chunk in contents.chunks.values():
            yield make(area="conversations", id=chunk.chunk_id, at=chunk.said_at)
    if "memories" in areas:
        for memory in contents.memories.values():
            tags = frozenset(memory.tags)
            yield make(area="memories", id=memory.key, at=memory.updated_at, type=memory.type, tags=tags)
    if "artifacts" in areas:
        for work in contents.artifacts.values():
            yield make(area="artifacts", id=work.artifact_id, at=work.created_at, type=work.type, name=work.name)


def _text_of(contents: SessionFile, place: _Found) -> str:
    """Return the text of a hit. Raises KeyError if it no longer exists."""
    if place.area == "conversations":
        return contents.chunks[place.id].content
    if place.area == "memories":
        memory = contents.memories[place.id]
        return search_text(memory.key, memory.tags, memory.content)
    artifact = contents.artifacts[place.id]
    return search_text(artifact.name, artifact.content)


def normal(text: str) -> str:
    """Normalize a text like queries. Sorts combining marks first: NFC takes quadratic time on many out of order."""
    if text.isascii():
        return text
    runs = groupby(text, key=lambda letter: unicodedata.combining(letter) > 0)
    in_order = (sorted(run, key=unicodedata.combining) if combines else run for combines, run in runs)
    return unicodedata.normalize("NFC", "".join(chain.from_iterable(in_order)))


def headline(text: str, words: Text, is_hit: Callable[[Token], bool]) -> str:
    """Return the fragments with the most hits, marked; the beginning of a text without hits."""
    places = [number for number, token in enumerate(words.tokens) if is_hit(token)]
    fragments = sorted(_fragments(words, places[:MOST_PLACES])) or [(0, FRAGMENT_WORDS // 3)]
    marked = set(places)
    return " … ".join(_show(text, words, marked, *fragment) for fragment in fragments)


def _fragments(words: Text, places: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last token of the best fragments, which do not overlap."""
    last = len(words.tokens) - 1
    left = places
    for _ in range(FRAGMENTS):
        if not left:
            return
        first = max(
            left, key=lambda place: len({words.tokens[n].stem for n in left if place <= n < place + FRAGMENT_WORDS})
        )
        inside = [place for place in left if first <= place < first + FRAGMENT_WORDS]
        around = (FRAGMENT_WORDS - (inside[-1] - first + 1)) // 2
        start, end = max(first - around, 0), min(inside[-1] + around, last)
        yield start, end
        left = [place for place in left if place < start - FRAGMENT_WORDS or place > end + FRAGMENT_WORDS]


def _show(text: str, words: Text, marked: set[int], first: int, last: int) -> str:
    tokens = words.tokens[first : last + 1]
    if not tokens:
        return text[: 2 * CONTEXT_CHARACTERS]
    pieces: list[str] = []
    at = tokens[0].start
    for number, token in enumerate(tokens, start=first):
        around = MARK if number in marked else ""
        pieces += [text[at : token.start], around, text[token.start : token.end], around]
        at = token.end
    return "".join(pieces)
