"""Full-text search over conversations, memories and artifacts: first what has all words, then what has any.

The best hits have the most different words, then these often and near to each other, then are the latest.
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
from sessions.postgres.reads.read_scope import ReadScope, stream
from sessions.postgres.reads.search_query import SearchQuery, understand
from sessions.reads.pagination import decode_cursor, fill
from sessions.reads.results import Page
from sessions.reads.search_hits import MOST_HITS, SMALLEST_HIT, Match, Position, hit_item
from sessions.reads.search_query import mark, normalize_marks

SUBSTRING_ROWS = 2_000
"""Of each area, the latest that can be seen: there is no index for substrings."""
SUBSTRING_BYTES = 128_000_000
"""Of text in each area, the latest, in which one substring is looked for; several share it."""
PARTIAL_ROWS, PARTIAL_BYTES = 5_000, 128_000_000
"""Of each area, the latest that have any of the words; those that have all of them are then left out."""
RANKED_BYTES = 24_000_000
"""Of the text of hits in each area, the latest, that are ranked: each word is looked for in all of it."""
SNIPPET_BYTES = 3_000_000
"""Of the text of hits on one page, which ends there: finding snippets in so much takes a third of a second."""
NEEDLES_AT_ONCE = 8
"""Substrings that take as long to be found in a text as its snippet."""


class _Area(msgspec.Struct, frozen=True, kw_only=True):
    """Where to search."""

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
    """Hits, the best first; each says whether it has all words or only some (`match`)."""
    query = understand(connection, command.q)
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
    rows = select(*columns).where(read_scope.within(area.table.session_id), read_scope.during(command, area.at))
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
    # Large ones are kept compressed: unpacked here once, and not for each word. OFFSET keeps it a step of its own.
    unpacked = found.c.search.op("||")(cast("", TSVECTOR)).label("search")
    others = [column for column in found.c if column.name not in ("search", "latest", "before")]
    found = select(*others, unpacked).offset(0).subquery()
    rank = query.rank(found.c.search, found.c.text).label("rank")
    return select(*(column for column in found.c if column.name != "search"), rank)


def _latest(rows: Select[Any], most_bytes: int) -> Subquery:
    """Of rows, those with the latest texts that have so many bytes together, and one more. A large text costs nothing
    until it is unpacked; its size is known without."""
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
