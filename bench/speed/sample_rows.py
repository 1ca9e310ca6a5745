"""The rows that the product writes for a webhook, taken from a real one, and copies of them for other webhooks.

The raw INSERT and the peers write these copies, so that they write the same rows whatever the schema is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from bench.speed.webhook import SESSIONS
from sessions.postgres.commands.row_parameters import texts_of

TABLES = ("memories", "deliveries", "events", "passages")
SAMPLE = "sample-1"
"""The delivery id and key of the sample. Its passage contains them."""
VARYING = ("session_id", "key", "delivery_id", "event_id", "item_id", "text", "words")
"""The columns that differ between copies."""
_COLUMNS = """
SELECT column_name, udt_name FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = %s AND is_generated = 'NEVER' AND identity_generation IS DISTINCT FROM
'ALWAYS' ORDER BY ordinal_position
"""

Row = dict[str, Any]


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook as it is stored."""

    rows: dict[str, Row]
    """The row of each table, with the columns that the product writes."""
    types: dict[str, dict[str, str]]
    """The type of each column of each table."""
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
        """Return one INSERT per table: if `many`, of the rows that `parameters` encodes, else of one row as a JSON
        object."""
        statements = []
        for name in tables:
            columns = ", ".join(f'"{column}"' for column in self.rows[name])
            values = ", ".join(
                f"unnest(CAST(%s AS {kind}[]))" if column in VARYING else f"CAST(%s AS {kind})"
                for column, kind in self.types[name].items()
            )
            selected = values if many else f"{columns} FROM json_populate_record(NULL::{name}, %s)"
            insert = f"INSERT INTO {name} ({columns}) SELECT {selected}"
            statements.append(_with_waiting(insert) if name == "passages" else insert)
        return "; ".join(statements)

    def parameters(self, copies: Iterable[dict[str, Row]], *, tables: Sequence[str] = TABLES) -> tuple[str | None, ...]:
        """Return the parameters of the statement for many rows: an array for each column in which they differ, else
        one value, as the product sends them."""
        together = list(copies)
        return tuple(
            texts_of([rows[name][column] for rows in together])
            if column in VARYING
            else _as_text(self.rows[name][column], kind)
            for name in tables
            for column, kind in self.types[name].items()
        )


def _as_text(value: Any, kind: str) -> str | None:
    """Return a value as the text of a type."""
    if value is None:
        return None
    if kind.startswith("json"):
        return msgspec.json.encode(value).decode()
    return texts_of(value) if isinstance(value, list) else str(value)


def _with_waiting(insert: str) -> str:
    """Return a statement that also notes passages as not embedded, as the product does."""
    return (
        f"WITH written AS ({insert} RETURNING passage_id)"  # noqa: S608
        " INSERT INTO passages_to_embed (passage_id) SELECT passage_id FROM written"
    )


def read_sample(cursor: Any, *, entry: str) -> Sample:
    """Read the rows that an applied webhook has left."""
    rows, types = {}, {}
    for name, column in (
        ("memories", "key"),
        ("deliveries", "delivery_id"),
        ("events", "delivery_id"),
        ("passages", "item_id"),
    ):
        cursor.execute(_COLUMNS, (name,))
        types[name] = dict(cursor.fetchall())
        quoted = ", ".join(f'"{found}"' for found in types[name])
        cursor.execute(
            f"SELECT row_to_json(r)::text FROM (SELECT {quoted} FROM {name} WHERE {column} = %s) r",  # noqa: S608
            (SAMPLE,),
        )
        rows[name] = msgspec.json.decode(cursor.fetchone()[0])
    return Sample(rows=rows, types=types, entry=entry)
