"""Searches the full text of conversations, memories and artifacts: hits with all words first, then those with any.

Hits are ordered by the number of distinct words, then by their frequency and proximity, then by time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Row,
    Select,
    Subquery,
    Text,
    case,
    cast,
    func,
    literal,
    null,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import TSVECTOR

from models.commands.definitions import Search
from models.tables import ArtifactRow, ChunkRow, MemoryRow, SessionRow
from sessions.postgres.reads.read_scope import during, stream, within
from sessions.postgres.reads.search_query import SearchQuery, build_query
from sessions.reads.pagination import decode_cursor, fill
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import Page
from sessions.reads.search_hits import MOST_HITS, SMALLEST_HIT, Match, Position, hit_item
from sessions.reads.search_query import mark, normalize_marks

SUBSTRING_ROWS = 2_000
"""The latest readable rows per area that are searched for substrings, which no index supports."""
SUBSTRING_BYTES = 128_000_000
"""The latest text per area that is searched for a substring; several substrings share the limit."""
PARTIAL_ROWS, PARTIAL_BYTES = 5_000, 128_000_000
"""The latest rows per area with any of the words; those with all words are then excluded."""
RANKED_BYTES = 24_000_000
"""The latest text of hits per area that is ranked; ranking searches it for every word."""
SNIPPET_BYTES = 3_000_000
"""The text of hits on a page, which ends at this size: generating its snippets takes a third of a second."""
NEEDLES_AT_ONCE = 8
"""Substring searches that take as long as generating a snippet of the same text."""


class _Area(msgspec.Struct, frozen=True, kw_only=True):
    """A searchable area, with its table and columns."""

    area: str
    table: Any
    id_name: str
    text: Any
    at: Any
    latest: Any
    kind: Any = null()
    name: Any = null()
    tags: Any = None


AREAS = {
    "conversations": _Area(
        area="conversations",
        table=ChunkRow,
        id_name="chunk_id",
        text=ChunkRow.content,
        at=ChunkRow.said_at,
        latest=ChunkRow.position,
    ),
    "memories": _Area(
        area="memories",
        table=MemoryRow,
        id_name="key",
        text=MemoryRow.search_text,
        at=MemoryRow.updated_at,
        latest=MemoryRow.updated_at,
        kind=MemoryRow.type,
        tags=MemoryRow.tags,
    ),
    "artifacts": _Area(
        area="artifacts",
        table=ArtifactRow,
        id_name="artifact_id",
        text=ArtifactRow.search_text,
        at=ArtifactRow.created_at,
        latest=ArtifactRow.position,
        kind=ArtifactRow.type,
        name=ArtifactRow.name,
    ),
}


def search(connection: Connection, command: Search, *, read_scope: ReadScope) -> Page:
    """Return hits, the best first; `match` tells whether a hit has all words or only some."""
    query = build_query(connection, command.q)
    start = decode_cursor(command.cursor, Position) or Position(match="all", offset=0)
    limit = min(command.limit, command.max_characters // SMALLEST_HIT + 1)
    hits = _hits(connection, command, query, start=start, limit=limit, read_scope=read_scope)
    return fill(hits, limit=limit, room=command.max_characters)


def _hits(
    connection: Connection, command: Search, query: SearchQuery, *, start: Position, limit: int, read_scope: ReadScope
) -> Iterator[tuple[Position, dict[str, Any] | None]]:
    wanted = limit + 1
    matches: tuple[Match, ...] = ("all", "partial") if start.match == "all" else ("partial",)
    for match in matches:
        offset = start.offset if match == start.match else 0
        statement = _ranked(command, query, match=match, read_scope=read_scope)
        if statement is None:
            return
        page = statement.offset(offset).limit(min(wanted, MOST_HITS - offset))
        for row in stream(connection, _with_snippets(page, query)):
            if row.is_beyond:
                yield Position(match=match, offset=offset), None
                return
            offset += 1
            wanted -= 1
            yield Position(match=match, offset=offset), _hit(row, query, match=match)
        if wanted <= 0:
            return


def _ranked(command: Search, query: SearchQuery, *, match: Match, read_scope: ReadScope) -> Select[Any] | None:
    areas = [AREAS[name] for name in dict.fromkeys(command.areas or AREAS)]
    if command.type is not None:
        areas = [area for area in areas if area.area != "conversations"]
    if command.tags:
        areas = [area for area in areas if area.tags is not None]
    if not areas:
        return None
    found = union_all(
        *(_candidates(area, command, query, match=match, read_scope=read_scope) for area in areas)
    ).subquery()
    return select(found).order_by(*_order(found.c))


def _candidates(
    area: _Area, command: Search, query: SearchQuery, *, match: Match, read_scope: ReadScope
) -> Select[Any]:
    columns: list[ColumnElement[Any]] = [
        literal(area.area, Text).label("area"),
        area.table.session_id,
        getattr(area.table, area.id_name).label("id"),
        cast(area.kind, Text).label("type"),
        cast(area.name, Text).label("name"),
        area.at.label("at"),
        area.text.label("text"),
        area.table.search,
        area.latest.label("latest"),
    ]
    rows = select(*columns).where(within(read_scope, area.table.session_id), during(read_scope, command, area.at))
    if command.type is not None:
        rows = rows.where(area.kind == command.type)
    if command.tags:
        rows = rows.where(area.tags.bool_op("&&")(cast(command.tags, ARRAY(Text))))
    rows = rows.order_by(area.latest.desc())
    if needles := len(query.parsed.needles):
        latest = _latest(rows.limit(SUBSTRING_ROWS), SUBSTRING_BYTES // needles)
        hits = select(latest).where(query.matches(match, latest.c.search, latest.c.text))
    elif match == "partial":
        latest = _latest(rows.where(query.has_any(area.table.search, area.text)).limit(PARTIAL_ROWS), PARTIAL_BYTES)
        hits = select(latest).where(query.matches(match, latest.c.search, latest.c.text))
    else:
        hits = rows.where(query.matches(match, area.table.search, area.text))
    found = _latest(hits.limit(MOST_HITS), RANKED_BYTES)
    # Large tsvectors are stored compressed: decompress once, not per word. OFFSET keeps this a separate step.
    unpacked = found.c.search.op("||")(cast("", TSVECTOR)).label("search")
    others = [column for column in found.c if column.name not in ("search", "latest", "before")]
    found = select(*others, unpacked).offset(0).subquery()
    rank = query.rank(found.c.search, found.c.text).label("rank")
    return select(*(column for column in found.c if column.name != "search"), rank)


def _latest(rows: Select[Any], most_bytes: int) -> Subquery:
    """Select the rows with the latest texts up to a total size, plus one. Large texts are not decompressed for this,
    since their size is stored."""
    every = rows.subquery()
    size = func.octet_length(every.c.text)
    upto = func.sum(size).over(order_by=every.c.latest.desc(), rows=(None, 0))
    columns = [column for column in every.c if column.name != "before"]
    counted = select(*columns, (upto - size).label("before")).subquery()
    return select(counted).where(counted.c.before < most_bytes).subquery()


def _with_snippets(page: Select[Any], query: SearchQuery) -> Select[Any]:
    hits = page.subquery()
    size = func.octet_length(hits.c.text)
    before = func.sum(size).over(order_by=_order(hits.c), rows=(None, 0)) - size
    most_bytes = SNIPPET_BYTES // (1 + len(query.parsed.needles) // NEEDLES_AT_ONCE)
    hits = select(hits, (before >= most_bytes).label("is_beyond")).subquery()
    columns = [column for column in hits.c if column.name != "text"]
    snippet = [
        case((hits.c.is_beyond, null()), else_=column.element).label(column.name)
        for column in query.snippet(hits.c.text)
    ]
    return (
        select(*columns, SessionRow.title.label("session_title"), *snippet)
        .join(SessionRow, SessionRow.session_id == hits.c.session_id)
        .order_by(*_order(hits.c))
    )


def _order(columns: Any) -> list[ColumnElement[Any]]:
    return [columns.rank.desc(), columns.at.desc(), columns.area, columns.session_id, columns.id]


def _hit(row: Row[Any], query: SearchQuery, *, match: Match) -> dict[str, Any]:
    snippet = row.headline if row.around is None else mark(row.around, query.parsed.needles)
    return hit_item(row._mapping, snippet=normalize_marks(snippet), match=match)
