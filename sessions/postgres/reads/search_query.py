"""Translates a search query to Postgres: the match condition, the rank and the snippet."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Text,
    and_,
    cast,
    false,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, TSQUERY

from models.tables import SEARCH_CONFIGURATION, SEARCHED_CHARACTERS, SLOW_LETTERS
from sessions.reads.search_hits import Match
from sessions.reads.search_query import ParsedQuery, any_of, parse_query

SNIPPET_OPTIONS = 'StartSel=**, StopSel=**, MaxFragments=2, MaxWords=30, MinWords=10, FragmentDelimiter=" … "'
CONTEXT_CHARACTERS = 60
"""Characters before a substring in its snippet."""
STAND_INS = "\ue000\ue001"
"""Replace the slow letters while a headline is generated; the headline then shows the original letters."""
RANKING = 1 | 32
"""Flags of ts_rank_cd: normalize by text length, and scale ranks below 1."""

_WITHOUT_SLOW_LETTERS = str.maketrans(dict.fromkeys(SLOW_LETTERS, "|"))
_SIMPLE: ColumnElement[Any] = literal_column("'simple'::regconfig")
_LANGUAGE: ColumnElement[Any] = literal_column(f"'{SEARCH_CONFIGURATION}'::regconfig")


class SearchQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed query. In its methods, `search` is the tsvector column of `text`."""

    parsed: ParsedQuery
    has_words: bool
    words: list[str]
    """A tsquery per wanted word, for matching any of them."""
    configuration: Any
    """The text search configuration of these words."""

    def matches(self, match: Match, search: Any, text: Any) -> ColumnElement[bool]:
        """Return the condition: all words and runs match; for `partial`, some of them or of their parts, but not all,
        and no unwanted term."""
        every = [func.strpos(text, run) > 0 for run in self.parsed.runs]
        if self.has_words:
            every.append(search.bool_op("@@")(_web_query(self.parsed.text)))
        if not every:
            return false()
        if match == "all":
            return and_(*every)
        none = [not_(search.bool_op("@@")(_web_query(term))) for term in self.parsed.unwanted]
        return and_(self.has_any(search, text), not_(and_(*every)), *none)

    def has_any(self, search: Any, text: Any) -> ColumnElement[bool]:
        """Return the condition that any word, run or part matches."""
        some = [func.strpos(text, part) > 0 for part in self.parsed.parts]
        if self.words:
            some.append(search.bool_op("@@")(self._any_word()))
        return or_(false(), *some)

    def rank(self, search: Any, text: Any) -> ColumnElement[Any]:
        """Return the number of distinct matching words, plus a fraction for their frequency and proximity."""
        word = func.unnest(cast(self.words, ARRAY(TSQUERY))).column_valued("word")
        part = func.unnest(cast(self.parsed.parts, ARRAY(Text))).column_valued("part")
        words = select(func.count()).where(search.bool_op("@@")(word))
        parts = select(func.count()).where(func.strpos(text, part) > 0)
        nearness = func.ts_rank_cd(search, self._any_word(), RANKING)
        return cast(words.scalar_subquery() + parts.scalar_subquery() + nearness, Float)

    def snippet(self, text: Any) -> list[ColumnElement[Any]]:
        """Return the columns `around`, the context of the first run or part, and `headline`, with the words marked."""
        needles = func.unnest(cast(self.parsed.needles, ARRAY(Text)))
        needle = needles.table_valued("text", with_ordinality="place", name="needle").render_derived()
        at = func.strpos(text, needle.c.text)
        start = func.greatest(at - CONTEXT_CHARACTERS, 1)
        around = (
            select(func.substr(text, start, 3 * CONTEXT_CHARACTERS)).where(at > 0).order_by(needle.c.place).limit(1)
        )
        beginning = func.translate(func.left(text, SEARCHED_CHARACTERS), SLOW_LETTERS, STAND_INS)
        headline = func.ts_headline(self.configuration, beginning, self._any_word(), SNIPPET_OPTIONS)
        headline = func.translate(headline, STAND_INS, SLOW_LETTERS)
        return [around.scalar_subquery().label("around"), headline.label("headline")]

    def _any_word(self) -> ColumnElement[Any]:
        return cast(" | ".join(self.words), TSQUERY)


def build_query(connection: Connection, q: str) -> SearchQuery:
    """Build the query from user input; any text is valid."""
    parsed = parse_query(q)
    wanted = parsed.wanted.translate(_WITHOUT_SLOW_LETTERS)
    language, simple, nodes = connection.execute(
        select(
            func.tsvector_to_array(func.to_tsvector(_LANGUAGE, wanted), type_=ARRAY(Text)),
            func.tsvector_to_array(func.to_tsvector(_SIMPLE, wanted), type_=ARRAY(Text)),
            func.numnode(_web_query(parsed.text)),
        )
    ).one()
    return SearchQuery(
        parsed=parsed,
        has_words=nodes > 0,
        # Stop words are searched only when the query has nothing else.
        words=any_of(language or simple),
        configuration=_LANGUAGE if language else _SIMPLE,
    )


def _web_query(text: str) -> ColumnElement[Any]:
    """Match the words as written or by their stems."""
    typed = literal(text.translate(_WITHOUT_SLOW_LETTERS))
    return func.websearch_to_tsquery(_SIMPLE, typed).op("||")(func.websearch_to_tsquery(_LANGUAGE, typed))
