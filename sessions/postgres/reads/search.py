"""Finds the passages with the words of a query, and those with a similar meaning, by their indexes, and ranks them.

The index gives the passages of each word, of which the rarest words choose those to rank. The cost depends on the
number of words, not on the number of passages that have a common one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection

from models.commands.definitions import Search
from sessions.postgres.commands.passage_rows import quote
from sessions.postgres.embeddings.nearest import NO_COSINE, NONE_NEAREST, ask, count_not_embedded, is_expected
from sessions.postgres.reads.search_scope import find_scope
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import Page
from sessions.reads.search_hits import Ranking, Shown, areas_of, show
from sessions.search.hits import Candidate, Hit, Place, rank
from sessions.search.query import Query, Term, parse_query
from sessions.search.ranking import Found, rarity
from sessions.search.typing_errors import mistyped, neighbours

COMMON = 10_000
"""Passages with a word. A word that more have does not choose passages, but raises their rank."""
COMMON_SHARE = 0.1
"""The share of the passages of a limited search that are supposed to have such a word."""
MOST_COMMON = 3_000
"""Latest passages that the rarest of common words chooses, besides those that have all of them."""
TOGETHER, RAREST = -1, -2
"""Stand for all words of a query, since passages that have them come first, and for the rarest of common words."""
CANDIDATES, NEAREST = 200, 100
"""Passages that are ranked because of their words, and because of their meaning; at least twice as many as hits are
wanted. In the sessions of a limited key, each of the nearest costs ten times as many that are read and left out."""
LOOKED_AT = 1_000
"""Passages with a word similar to a mistyped one, among which one must fulfil the conditions of the search."""

_FOUND = (
    "(SELECT %s AS term, passage_id FROM passages WHERE words @@ CAST(%s AS tsquery) AND {where}"
    " ORDER BY passage_id DESC LIMIT %s)"
)
_CANDIDATES = """
    WITH found AS MATERIALIZED ({found}),
    frequencies AS (
        SELECT term, passages,
            CASE term WHEN -1 THEN 100 ELSE 0 END
            + ln(1 + (greatest(%s - passages, 0) + 0.5) / (passages + 0.5)) AS weight
        FROM (SELECT term, CAST(count(*) AS float8) AS passages FROM found GROUP BY term) counted
    ),
    best AS (
        SELECT passage_id, sum(weight) AS score
        FROM found JOIN frequencies USING (term) GROUP BY passage_id ORDER BY score DESC, passage_id DESC LIMIT %s
    ),
    chosen AS (SELECT passage_id FROM best UNION ({nearest}))
    SELECT
        area, session_id, item_id, start, text, at, type, name, weight, length(words) AS length, {cosine} AS cosine,
        (
            SELECT json_agg(json_build_array(w.lexeme, cardinality(w.positions))) FROM unnest(words) w
            WHERE w.lexeme = ANY (CAST(%s AS text[])) OR w.lexeme ^@ ANY (CAST(%s AS text[]))
        ) AS counts,
        (SELECT json_agg(json_build_array(term, passages)) FROM frequencies) AS frequencies
    FROM chosen JOIN passages USING (passage_id)
"""
_COMMON_WORDS = """
    SELECT
        greatest((SELECT reltuples FROM pg_class WHERE oid = 'passages'::regclass), 1),
        (
            SELECT json_agg(json_build_array(word, share))
            FROM pg_stats, unnest(
                most_common_elems::text::text[], most_common_elem_freqs[1:cardinality(most_common_elems::text::text[])]
            ) AS common (word, share)
            WHERE schemaname = current_schema() AND tablename = 'passages' AND attname = 'words'
                AND (word = ANY (%s) OR word ^@ ANY (CAST(%s AS text[])))
        )
"""
_SIMILAR = """
    SELECT w.word FROM unnest(CAST(%s AS text[]), CAST(%s AS text[])) AS w (word, query)
    WHERE EXISTS (SELECT FROM (SELECT * FROM passages WHERE words @@ CAST(w.query AS tsquery) LIMIT %s) p WHERE {where})
"""
"""Each word is looked up in the index: in one query with all of them, Postgres would rather read the whole table."""
_WORDS_OF_FEW = "SELECT DISTINCT w.lexeme FROM passages, unnest(words) w WHERE {where} AND w.lexeme = ANY (%s)"


class _Choosing(NamedTuple):
    """A condition on the words of passages, with the most passages, the latest, that it chooses."""

    number: int
    """The term's number, TOGETHER or RAREST."""
    query: str
    most: int


class _Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The terms of a query, with estimates for those that are not counted because too many passages have them."""

    query: Query
    estimates: Sequence[float]
    """The number of all passages that have each term, to find the rarest."""
    common: frozenset[int]
    """Numbers of the terms that more than COMMON passages have."""
    open_ended: frozenset[int]
    """Numbers of the terms with which words begin that more than COMMON passages have."""
    guesses: Sequence[float]
    """The number of the search's own passages that have each term, for their ranks."""
    passages: float
    """Number of all passages, or of those of a limited search."""


def search(connection: Connection, command: Search, *, read_scope: ReadScope) -> Page:
    """Return hits, the best first; `match` tells whether a hit has all words, some, or none but a similar meaning."""
    query = parse_query(command.q)
    areas = areas_of(command)

    def best(most: int) -> Ranking:
        if not query.terms or not areas:
            return Ranking()
        return _Search(connection, command, query, areas=areas, read_scope=read_scope).rank(most)

    return show(command, query, best)


class _Search:
    def __init__(
        self, connection: Connection, command: Search, query: Query, *, areas: Sequence[str], read_scope: ReadScope
    ) -> None:
        self._connection = connection
        self._query = query
        self._scope = find_scope(connection, command, query, areas=areas, read_scope=read_scope)
        self._question = ask(connection, command.q)

    def rank(self, most: int) -> Ranking:
        """Return up to this many hits."""
        known = self._count(self._query)
        candidates, frequencies = self._candidates(known, most)
        corrected = self._corrected(frequencies)
        if corrected is not None:
            known = self._count(corrected)
            candidates, frequencies = self._candidates(known, most)
        rarities = [rarity(frequency, known.passages) for frequency in frequencies]
        by_meaning = self._question is not None
        hits = rank(candidates, known.query, rarities, by_meaning=by_meaning)[:most]
        return Ranking(
            hits=hits,
            shown=_details(self._connection, hits),
            by_meaning=by_meaning,
            not_embedded=count_not_embedded(self._connection, self._scope.where) if by_meaning else 0,
            is_waiting=not by_meaning and is_expected(self._connection),
        )

    def _candidates(self, terms: _Terms, most: int) -> tuple[list[Candidate], list[float]]:
        """Return the passages to rank, and the number of passages for each term."""
        ranked = max(CANDIDATES, 2 * most)
        choosing = _choose(terms)
        where = self._scope.where
        found = " UNION ALL ".join([_FOUND.format(where=where.statement)] * len(choosing))
        most_near = max(NEAREST, 2 * most)
        nearest = self._question.nearest(where, most=most_near) if self._question else NONE_NEAREST
        cosine = self._question.cosine() if self._question else NO_COSINE
        rows = self._connection.exec_driver_sql(
            _CANDIDATES.format(found=found, nearest=nearest.statement, cosine=cosine.statement),
            (
                *(value for one in choosing for value in (one.number, one.query, *where.parameters, one.most)),
                terms.passages,
                ranked,
                *nearest.parameters,
                *cosine.parameters,
                list(dict.fromkeys(form for term in terms.query.terms for form in term.forms)),
                list(dict.fromkeys(term.prefix for term in terms.query.terms if term.prefix)),
            ),
        ).all()
        counted = dict(rows[0].frequencies or ()) if rows else {}
        chosen = {one.number for one in choosing if one.most > COMMON}
        frequencies = [
            float(counted.get(number, 0)) if number in chosen else guess for number, guess in enumerate(terms.guesses)
        ]
        return [_candidate(row) for row in rows], frequencies

    def _count(self, query: Query) -> _Terms:
        """Return the terms, and those that are common by the statistics of the index."""
        words = [form for term in query.terms for form in term.forms]
        prefixes = [term.prefix for term in query.terms if term.prefix]
        total, common = self._connection.exec_driver_sql(_COMMON_WORDS, (words, prefixes)).one()
        shares = Counter(dict(common or ()))
        estimates = [max(shares[form] for form in term.forms) * total for term in query.terms]
        longer = [_share_of_prefix(term, shares) * total for term in query.terms]
        limited = self._scope.passages
        return _Terms(
            query=query,
            estimates=[max(pair) for pair in zip(estimates, longer, strict=True)],
            common=frozenset() if self._scope.is_small else _above(COMMON, estimates),
            open_ended=frozenset() if self._scope.is_small else _above(COMMON, longer),
            guesses=estimates if limited is None else [COMMON_SHARE * limited] * len(estimates),
            passages=total if limited is None else limited,
        )

    def _corrected(self, frequencies: Sequence[float]) -> Query | None:
        """Return the query with similar words for words that no passage has, or None."""
        unknown = mistyped(self._query.terms, frequencies)
        if not unknown:
            return None
        wanted = {number: list(dict.fromkeys(neighbours(term.forms[0]))) for number, term in unknown.items()}
        known = self._known(list({word for words in wanted.values() for word in words}))
        if not known:
            return None
        terms = list(self._query.terms)
        for number, words in wanted.items():
            if similar := tuple(word for word in words if word in known):
                terms[number] = Term((terms[number].forms[0], *similar), is_corrected=True)
        return msgspec.structs.replace(self._query, terms=terms)

    def _known(self, words: list[str]) -> set[str]:
        """Return those of many words that passages of the search have."""
        where = self._scope.where
        if self._scope.is_small:
            found = self._connection.exec_driver_sql(
                _WORDS_OF_FEW.format(where=where.statement), (*where.parameters, words)
            )
            return set(found.scalars())
        self._connection.exec_driver_sql("SET LOCAL enable_seqscan TO off")
        found = self._connection.exec_driver_sql(
            _SIMILAR.format(where=where.statement), (words, list(map(quote, words)), LOOKED_AT, *where.parameters)
        )
        known = set(found.scalars())
        self._connection.exec_driver_sql("SET LOCAL enable_seqscan TO DEFAULT")
        return known


def _choose(terms: _Terms) -> list[_Choosing]:
    """Return the conditions that choose passages: the rare terms; else all terms together, and the rarest of them.
    Where too many words begin with a term, only those that have the term itself are chosen by it."""
    every = {number: _tsquery(term) for number, term in enumerate(terms.query.terms)}
    plain = {number: _tsquery(term, number not in terms.open_ended) for number, term in enumerate(terms.query.terms)}
    needed = [number for number, term in enumerate(terms.query.terms) if not term.is_whole]
    rare = [number for number in every if number not in terms.common]
    chosen = [_Choosing(number, plain[number], COMMON + 1) for number in rare]
    if not needed or not terms.common | terms.open_ended >= set(needed):
        return chosen or [_Choosing(number, query, COMMON + 1) for number, query in plain.items()]
    rarest = min(needed, key=lambda number: terms.estimates[number])
    # Passages with the words themselves come before those with longer ones, of which only the latest are chosen.
    together = dict.fromkeys(" & ".join(f"({queries[number]})" for number in needed) for queries in (plain, every))
    return [
        *(_Choosing(TOGETHER, query, COMMON) for query in together),
        _Choosing(RAREST, every[rarest], MOST_COMMON),
        *chosen,
    ]


def _tsquery(term: Term, with_prefix: bool = True) -> str:
    prefixes = [f"{quote(term.prefix)}:*"] if term.prefix and with_prefix else []
    return " | ".join([*map(quote, term.forms), *prefixes])


def _share_of_prefix(term: Term, shares: Mapping[str, float]) -> float:
    """Return the share of the passages that have common words that begin with a term: each may have several."""
    return sum(share for word, share in shares.items() if term.prefix and word.startswith(term.prefix))


def _above(limit: float, values: Sequence[float]) -> frozenset[int]:
    """Return the numbers of the values above a limit."""
    return frozenset(number for number, value in enumerate(values) if value > limit)


def _candidate(row: Any) -> Candidate:
    found = Found(counts=Counter(dict(row.counts or ())), length=row.length)
    names = ("area", "session_id", "item_id", "start", "text", "at", "type", "name", "weight", "cosine")
    return Candidate(**{name: getattr(row, name) for name in names}, found=found)


def _details(connection: Connection, hits: Sequence[Hit]) -> dict[Place, Shown]:
    """Return the titles of the sessions, and the status of memories, tasks and sessions."""
    if not hits:
        return {}
    places = [hit.place for hit in hits]
    rows = connection.exec_driver_sql(
        "SELECT h.number, s.title, CASE h.area WHEN 'sessions' THEN s.status"
        " WHEN 'memories' THEN (SELECT status FROM memories m WHERE m.session_id = h.session_id AND m.key = h.item_id)"
        " WHEN 'tasks' THEN (SELECT status FROM tasks t WHERE t.session_id = h.session_id AND t.task_id = h.item_id)"
        " END AS status"
        " FROM unnest(CAST(%s AS text[]), CAST(%s AS text[]), CAST(%s AS text[])) WITH ORDINALITY"
        " AS h (area, session_id, item_id, number) JOIN sessions s ON s.session_id = h.session_id",
        tuple(map(list, zip(*places, strict=True))),
    )
    return {places[row.number - 1]: Shown(session_title=row.title, status=row.status) for row in rows}
