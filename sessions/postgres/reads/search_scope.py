"""The passages among which a search looks: those of the sessions that it may read, and that fulfil its conditions.

What the ranks of a limited search depend on is counted among its own passages: statistics of all of them would tell
how many there are, and which words are common in sessions that the key may not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from models.access.session_glob import like_pattern
from models.commands.definitions import Search
from sessions.postgres.commands.passage_rows import quote
from sessions.postgres.embeddings.nearest import Part
from sessions.reads.read_scope import ReadScope
from sessions.search.query import Query

MOST_SESSIONS = 1_000
"""Sessions of a pattern that are named one by one, by which the index finds their passages whatever the collation."""
COUNTED = 20_000
"""Passages up to which those of a limited search are counted."""
FEW = 2_000
"""Passages among which all words are counted, also those that are common elsewhere."""
_EVERYTHING = Part("true", ())


class SearchScope(msgspec.Struct, frozen=True, kw_only=True):
    """The passages of a search."""

    where: Part
    """The conditions that they fulfil."""
    passages: int | None
    """The number of passages in the sessions of a limited search, up to COUNTED; None if it may read all sessions."""

    @property
    def is_small(self) -> bool:
        """Whether all of its passages can be looked at."""
        return self.passages is not None and self.passages <= FEW


def find_scope(
    connection: Connection, command: Search, query: Query, *, areas: Sequence[str], read_scope: ReadScope
) -> SearchScope:
    """Return the scope of a search."""
    sessions = _sessions(connection, read_scope)
    where = _conditions(command, query, areas=areas, read_scope=read_scope)
    if sessions is _EVERYTHING:
        return SearchScope(where=where, passages=None)
    counted = connection.exec_driver_sql(
        f"SELECT count(*) FROM (SELECT FROM passages WHERE {sessions.statement} LIMIT %s) counted",  # noqa: S608
        (*sessions.parameters, COUNTED),
    )
    limited = Part(f"{sessions.statement} AND {where.statement}", (*sessions.parameters, *where.parameters))
    return SearchScope(where=limited, passages=counted.scalar_one())


def _sessions(connection: Connection, read_scope: ReadScope) -> Part:
    """Return the condition on the sessions."""
    if read_scope.session_id is not None:
        return Part("session_id = %s", (read_scope.session_id,))
    if read_scope.session_glob is None:
        return _EVERYTHING
    matches = Part("session_id LIKE %s ESCAPE '\\'", (like_pattern(read_scope.session_glob),))
    found = connection.exec_driver_sql(
        f"SELECT session_id FROM sessions WHERE {matches.statement} LIMIT %s",  # noqa: S608
        (*matches.parameters, MOST_SESSIONS + 1),
    )
    named = list(found.scalars())
    return matches if len(named) > MOST_SESSIONS else Part("session_id = ANY (CAST(%s AS text[]))", (named,))


def _conditions(command: Search, query: Query, *, areas: Sequence[str], read_scope: ReadScope) -> Part:
    conditions: list[tuple[str, Any]] = [("area = ANY (CAST(%s AS text[]))", list(areas))]
    since, until = command.period(read_scope.now)
    conditions += [(f"at {sign} %s", moment) for sign, moment in ((">=", since), ("<", until)) if moment is not None]
    if command.type is not None:
        conditions.append(("type = %s", command.type))
    if command.tags:
        conditions.append(("tags && CAST(%s AS text[])", list(command.tags)))
    for words in query.unwanted:
        conditions.append(("NOT words @@ CAST(%s AS tsquery)", " <-> ".join(map(quote, words))))
    return Part(" AND ".join(text for text, _ in conditions), tuple(value for _, value in conditions))
