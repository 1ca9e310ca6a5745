"""Full-text search in the JSON store, ranked and shown as in Postgres.

It works without an index: every document is read, which takes about a second for a few hundred megabytes.
"""

from __future__ import annotations

import heapq
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set

import msgspec

from models.commands.definitions import Search
from sessions.documents.document import Item, records, session_record
from sessions.embeddings.encoder import ModelFailed
from sessions.embeddings.vector_cache import VectorCache
from sessions.files.session_file import SessionFile
from sessions.files.session_reader import SessionReader
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import Page
from sessions.reads.search_hits import Ranking, Shown, areas_of, show
from sessions.rules.records import Memory, Record, Session, Task
from sessions.search.hits import Candidate, Hit, Place, rank
from sessions.search.passages import Passage, meaning_texts, passages_of
from sessions.search.query import Query, Term, parse_query
from sessions.search.ranking import Found, has_phrases, rarity
from sessions.search.typing_errors import mistyped, neighbours
from sessions.search.words import fold, split_words

logger = logging.getLogger(__name__)

NEAREST = 200
"""Passages that are ranked though they have no word of the query."""
EMBEDDING_SECONDS = 1.0
"""The most that a search spends on vectors of passages; later searches in the same process continue."""

_PassageId = tuple[str, str, str, int]
_WORDS = re.compile(r"[^\W_]+")


class _Corpus:
    """The passages that a search may find. Each pass reads all documents."""

    def __init__(self, reader: SessionReader, command: Search, read_scope: ReadScope) -> None:
        self._reader, self._read_scope = reader, read_scope
        self._areas = areas_of(command)
        self._during, self._type, self._tags = read_scope.during(command), command.type, set(command.tags)
        self.details: dict[Place, Shown] = {}

    def passages(self) -> Iterator[Passage]:
        """Yield the passages, those of a record together."""
        for contents in self._reader.within(self._read_scope) if self._areas else ():
            assert contents.session is not None
            for record in _records(contents, self._areas):
                for passage in passages_of(record):
                    if not self._is_wanted(passage):
                        break
                    yield passage
                    status = record.status if isinstance(record, Memory | Task | Session) else None
                    place = passage.area, passage.session_id, passage.item_id
                    self.details[place] = Shown(session_title=contents.session.title, status=status)

    def _is_wanted(self, passage: Passage) -> bool:
        return (
            self._type in (None, passage.type)
            and (not self._tags or not self._tags.isdisjoint(passage.tags))
            and self._during(passage.at)
        )


class _Meanings(msgspec.Struct, frozen=True, kw_only=True):
    """The nearness of the passages to the query."""

    cosines: Mapping[_PassageId, float] = {}
    nearest: Set[_PassageId] = frozenset()
    not_embedded: int = 0
    """Passages that this process has no vectors of yet: the next searches make them."""


def search(reader: SessionReader, command: Search, read_scope: ReadScope) -> Page:
    """Return hits, the best first; `match` tells whether a hit has all words, some, or none but a similar meaning."""
    corpus = _Corpus(reader, command, read_scope)
    query = parse_query(command.q)

    def best(most: int) -> Ranking:
        if not query.terms:
            return Ranking()
        meanings = _compare(corpus, reader.vectors, command.q)
        hits, frequencies = _rank(corpus, query, meanings)
        corrected = _corrected(corpus, query, frequencies)
        if corrected is not None:
            hits, _ = _rank(corpus, corrected, meanings)
        by_meaning = meanings is not None
        not_embedded = meanings.not_embedded if meanings else 0
        return Ranking(
            hits=hits[:most],
            shown=corpus.details,
            by_meaning=by_meaning,
            not_embedded=not_embedded,
            is_waiting=not by_meaning and reader.vectors is not None,
        )

    return show(command, query, best)


def _compare(corpus: _Corpus, vectors: VectorCache | None, question: str) -> _Meanings | None:
    """Compare the meaning of the passages with that of the question, if there is a model."""
    if vectors is None:
        return None
    passages: list[_PassageId] = []
    texts: list[str] = []
    for passage in corpus.passages():
        pieces = _meanings_of(passage)
        passages += [_id_of(passage)] * len(pieces)
        texts += pieces
    try:
        found = vectors.cosines(question, texts, seconds=EMBEDDING_SECONDS)
    except ModelFailed as error:
        logger.warning("Searching by words alone. %s", error)
        return None
    cosines: dict[_PassageId, float] = {}
    for one, cosine in zip(passages, found, strict=True):
        if cosine is not None:
            cosines[one] = max(cosine, cosines.get(one, -1.0))
    nearest = heapq.nlargest(NEAREST, cosines, key=lambda one: cosines[one])
    return _Meanings(cosines=cosines, nearest=frozenset(nearest), not_embedded=len({*passages}) - len(cosines))


def _rank(corpus: _Corpus, query: Query, meanings: _Meanings | None) -> tuple[list[Hit], list[int]]:
    """Return all hits, and the number of passages that have each term."""
    candidates: list[Candidate] = []
    frequencies = [0] * len(query.terms)
    total = 0
    may_match = _Probe(query)
    near = meanings or _Meanings()
    for passage in corpus.passages():
        total += 1
        one = _id_of(passage)
        if one not in near.nearest and not may_match(f"{passage.label}\n{passage.text}"):
            continue
        found = _find(passage, query)
        if found is None:
            continue
        _, terms = found.score(query.terms, [1.0] * len(query.terms))
        for number in terms:
            frequencies[number] += 1
        if terms or one in near.nearest:
            candidates.append(_candidate(passage, found, near.cosines.get(one)))
    rarities = [rarity(frequency, total) for frequency in frequencies]
    return rank(candidates, query, rarities, by_meaning=meanings is not None), frequencies


def _id_of(passage: Passage) -> _PassageId:
    return passage.area, passage.session_id, passage.item_id, passage.number


def _meanings_of(passage: Passage) -> list[str]:
    return meaning_texts(passage.area, item_id=passage.item_id, name=passage.name, tags=passage.tags, text=passage.text)


def _find(passage: Passage, query: Query) -> Found | None:
    """Return the words of a query in a passage, or None if it has unwanted ones."""
    label, text = list(split_words(passage.label)), list(split_words(passage.text))
    if any(
        has_phrases([word.forms for word in words], msgspec.structs.replace(query, phrases=[one]))
        for one in query.unwanted
        for words in (label, text)
    ):
        return None
    counts = Counter(form for word in (*label, *text) for form in {*word.forms, *word.wholes})
    return Found(counts=counts, length=len(counts))


def _candidate(passage: Passage, found: Found, cosine: float | None) -> Candidate:
    names = ("area", "session_id", "item_id", "start", "text", "at", "type", "name", "weight")
    return Candidate(**{name: getattr(passage, name) for name in names}, found=found, cosine=cosine)


class _Probe:
    """Tells quickly, without splitting a text, that it cannot have any term."""

    def __init__(self, query: Query) -> None:
        self._parts = {part for term in query.terms for part in self._parts_of(term)}
        # Digits may be grouped in the text.
        self._is_number = any(term.forms[0].isdigit() for term in query.terms)

    @staticmethod
    def _parts_of(term: Term) -> Sequence[str]:
        """Return parts of which a text has one if it has the term."""
        if term.is_corrected:
            return term.forms
        # The end of a stem may differ from that of the word in the text: "happi" is the stem of "happy".
        return [term.forms[0][: max(min(map(len, term.forms)) - 1, 2)]]

    def __call__(self, text: str) -> bool:
        folded = fold(text)
        return self._is_number or any(part in folded for part in self._parts)


def _corrected(corpus: _Corpus, query: Query, frequencies: Sequence[int]) -> Query | None:
    """Return the query with similar words for words that no passage has, or None."""
    unknown = mistyped(query.terms, frequencies)
    wanted = {number: list(neighbours(term.forms[0])) for number, term in unknown.items()}
    if not wanted:
        return None
    every = {word for words in wanted.values() for word in words}
    known: set[str] = set()
    for passage in corpus.passages():
        known |= every.intersection(_WORDS.findall(fold(f"{passage.label}\n{passage.text}")))
    if not known:
        return None
    terms = list(query.terms)
    for number, words in wanted.items():
        if similar := tuple(word for word in dict.fromkeys(words) if word in known):
            terms[number] = Term((terms[number].forms[0], *similar), is_corrected=True)
    return msgspec.structs.replace(query, terms=terms)


def _records(contents: SessionFile, areas: Sequence[str]) -> Iterator[Record]:
    if "sessions" in areas and contents.session is not None:
        yield session_record(contents.session)
    items: dict[str, Mapping[str, Item]] = {
        "conversations": contents.chunks,
        "memories": contents.memories,
        "artifacts": contents.artifacts,
        "tasks": contents.tasks,
    }
    for area in areas:
        for item in items.get(area, {}).values():
            yield next(iter(records(item, contents.session_id)))
