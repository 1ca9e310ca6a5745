"""The rows that the product writes for a webhook, taken from a real one, and copies of them for other webhooks.

The raw INSERT and the peers write these copies, so that they write the same rows whatever the schema is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from bench.speed.webhook import SESSIONS

TABLES = ("memories", "deliveries", "events", "passages")
SAMPLE = "sample-1"
"""The delivery id and key of the sample. Its passage contains them."""
_COLUMNS = """
SELECT column_name FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = %s AND is_generated = 'NEVER' AND identity_generation IS DISTINCT FROM
'ALWAYS' ORDER BY ordinal_position
"""

Row = dict[str, Any]


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook as it is stored."""

    rows: dict[str, Row]
    """The row of each table, with the columns that the product writes."""
    entry: str
    """The entry in the inbox."""

    def copy(self, delivery_id: str, number: int) -> dict[str, Row]:
        """Return the rows of another webhook. Numbers and ids are unique."""
        session_id = f"bench-{number % SESSIONS}"
        rows = {name: {**row, "session_id": session_id} for name, row in self.rows.items()}
        rows["memories"]["key"] = delivery_id
        rows["deliveries"]["delivery_id"] = rows["events"]["delivery_id"] = delivery_id
        rows["events"]["event_id"] = time.time_ns() // 1_000
        rows["passages"] |= {
            "item_id": delivery_id,
            **{name: self.rows["passages"][name].replace(SAMPLE, delivery_id) for name in ("text", "words")},
        }
        return rows

    def statement(self, *, many: bool, tables: Sequence[str] = TABLES) -> str:
        """Return one INSERT per table, each with a JSON parameter of its rows: an array if `many`, or an object."""
        function = "json_populate_recordset" if many else "json_populate_record"
        statements = []
        for name in tables:
            columns = ", ".join(f'"{column}"' for column in self.rows[name])
            insert = f"INSERT INTO {name} ({columns}) SELECT {columns} FROM {function}(NULL::{name}, %s)"  # noqa: S608
            statements.append(_with_waiting(insert) if name == "passages" else insert)
        return "; ".join(statements)


def _with_waiting(insert: str) -> str:
    """Return a statement that also notes passages as not embedded, as the product does."""
    return (
        f"WITH written AS ({insert} RETURNING passage_id)"  # noqa: S608
        " INSERT INTO passages_to_embed (passage_id) SELECT passage_id FROM written"
    )


def read_sample(cursor: Any, *, entry: str) -> Sample:
    """Read the rows that an applied webhook has left."""
    rows = {}
    for name, column in (
        ("memories", "key"),
        ("deliveries", "delivery_id"),
        ("events", "delivery_id"),
        ("passages", "item_id"),
    ):
        cursor.execute(_COLUMNS, (name,))
        columns = [found for (found,) in cursor.fetchall()]
        quoted = ", ".join(f'"{found}"' for found in columns)
        cursor.execute(
            f"SELECT row_to_json(r)::text FROM (SELECT {quoted} FROM {name} WHERE {column} = %s) r",  # noqa: S608
            (SAMPLE,),
        )
        rows[name] = msgspec.json.decode(cursor.fetchone()[0])
    return Sample(rows=rows, entry=entry)


def encode_columns(copies: Iterable[dict[str, Row]], *, tables: Sequence[str] = TABLES) -> tuple[str, ...]:
    """Return the parameters of the statement for many rows."""
    together = list(copies)
    return tuple(msgspec.json.encode([rows[name] for rows in together]).decode() for name in tables)
