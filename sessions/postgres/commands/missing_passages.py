"""Writes the passages of records that have none, or those of an earlier text: earlier versions wrote no passages.

It goes through all records in small transactions, beside the workers, and may be killed and repeated at any time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from sessions.postgres.commands.loading import load
from sessions.postgres.commands.writing import passage_inserts, send
from sessions.rules.dispatch import ReadSet
from sessions.rules.records import Key, Record
from sessions.search.passages import Passage, passages_of

READ_AT_ONCE, LOCKED_AT_ONCE = 1_000, 50
"""Records that are checked, and records that are locked while their passages are written."""
WRITTEN_CHARACTERS = 1_000_000
"""Characters of a transaction, unless a single record has more: some tenths of a second."""


class _Area(NamedTuple):
    """The records of an area."""

    name: str
    table: str
    item_id: str
    at: str
    """The time of a record's text, which its passages have, too."""

    def key(self, place: tuple[str, str]) -> Key:
        """Return the key of a record by its session and id."""
        return (self.table, place[0]) if self.table == "sessions" else (self.table, *place)


_AREAS = (
    _Area("sessions", "sessions", "session_id", "created_at"),
    _Area("memories", "memories", "key", "updated_at"),
    _Area("tasks", "tasks", "task_id", "created_at"),
    _Area("artifacts", "artifacts", "artifact_id", "coalesce(revised_at, created_at)"),
    _Area("conversations", "conversation_chunks", "chunk_id", "coalesce(start_at, created_at)"),
)
_PAGE = """
    SELECT session_id, item_id, NOT EXISTS (
        SELECT FROM passages p
        WHERE p.session_id = r.session_id AND p.area = %s AND p.item_id = r.item_id AND p.at = r.at
    ) AS is_missing
    FROM (
        SELECT session_id, {item_id} AS item_id, {at} AS at FROM {table}
        WHERE (session_id, {item_id}) > (%s, %s) ORDER BY 1, 2 LIMIT %s
    ) r
    ORDER BY 1, 2
"""
_LOCK = """
    SELECT r.session_id, r.{item_id} AS item_id
    FROM unnest(CAST(%s AS text[]), CAST(%s AS text[])) AS w (session_id, item_id)
    JOIN {table} r ON r.session_id = w.session_id AND r.{item_id} = w.item_id
    FOR NO KEY UPDATE OF r SKIP LOCKED
"""
_BEGINNING = ("", "")


class MissingPassages:
    """One pass over all records, in turns."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.written = 0
        """Records whose passages were written."""
        self._begin()

    def _begin(self) -> None:
        self._left = list(_AREAS)
        self._after = _BEGINNING
        self._has_skipped = False

    @property
    def is_done(self) -> bool:
        """Whether all records have their passages."""
        return not self._left

    def write(self, *, seconds: float) -> None:
        """Go on for so many seconds."""
        ends_at = time.monotonic() + seconds
        while self._left and time.monotonic() < ends_at:
            self._write_page(self._left[0], ends_at)
            if not self._left and self._has_skipped:
                self._begin()
                return

    def _write_page(self, area: _Area, ends_at: float) -> None:
        with self._engine.begin() as connection:
            statement = _PAGE.format(**area._asdict())
            rows = connection.exec_driver_sql(statement, (area.name, *self._after, READ_AT_ONCE)).all()
        missing = [(row.session_id, row.item_id) for row in rows if row.is_missing]
        while missing:
            with self._engine.begin() as connection:
                done = self._write_first(connection, area, missing[:LOCKED_AT_ONCE])
            self._after = missing[done - 1]
            missing = missing[done:]
            if time.monotonic() >= ends_at:
                return
        if len(rows) == READ_AT_ONCE:
            self._after = (rows[-1].session_id, rows[-1].item_id)
        else:
            self._left.pop(0)
            self._after = _BEGINNING

    def _write_first(self, connection: Connection, area: _Area, places: Sequence[tuple[str, str]]) -> int:
        """Write the passages of the first of these records, and return their number. Records that a worker is writing
        at the moment are left for another pass."""
        statement = _LOCK.format(**area._asdict())
        locked = {(row.session_id, row.item_id) for row in connection.exec_driver_sql(statement, _columns(places))}
        self._has_skipped |= len(locked) < len(places)
        # Read in statements of their own, which see what was committed until the records were locked.
        records = load(connection, ReadSet(keys={area.key(place) for place in locked}))
        written: list[Passage] = []
        replaced: list[Key] = []
        done = 0
        for place in places:
            done += 1
            record = records.find(area.key(place), Record)
            if record is not None:
                written += passages_of(record)
                replaced.append((place[0], area.name, place[1]))
            if sum(len(passage.text) for passage in written) >= WRITTEN_CHARACTERS:
                break
        send(connection, passage_inserts(written, replaced=replaced))
        self.written += len(replaced)
        return done


def _columns(places: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    sessions, ids = zip(*places, strict=True)
    return list(sessions), list(ids)
