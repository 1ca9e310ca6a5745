"""Selects parts of long columns for `sessions.reads.partial_values.long_text`.

JSON from senders is selected as text, so that it is returned exactly as sent.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw
from sqlalchemy import ColumnElement, Dialect, Text, TypeDecorator, case, cast, func, literal_column


class Verbatim(TypeDecorator[Raw]):
    """Selects JSON as text, which the driver would otherwise decode."""

    impl = Text
    cache_ok = True

    def process_result_value(self, value: str | None, dialect: Dialect) -> Raw | None:
        """Return the text for embedding in other JSON."""
        return None if value is None else Raw(value.encode())


def text_excerpt(column: Any, name: str, *, room: int, offset: Any = 0) -> list[ColumnElement[Any]]:
    """Return columns for at most `room` characters of a text, starting at `offset`."""
    return [
        func.substr(column, offset + 1, room).label(f"{name}_text"),
        func.char_length(column).label(f"{name}_length"),
    ]


def json_excerpt(column: Any, name: str, *, room: int, offset: int = 0) -> list[ColumnElement[Any]]:
    """Return columns for a JSON value of at most `room` characters, or for a part of the text of a longer one."""
    verbatim = cast(column, Verbatim)
    return [
        *text_excerpt(_readable(column), name, room=room, offset=offset),
        case((func.char_length(verbatim) <= room, verbatim)).label(f"{name}_whole"),
        (func.json_typeof(column) != "string").label(f"{name}_is_json"),
    ]


def readable_length(column: Any) -> ColumnElement[int]:
    """Return the length of a JSON value's text, which is slow to compute for a long value."""
    return func.char_length(_readable(column))


def _readable(column: Any) -> ColumnElement[Any]:
    is_string = func.json_typeof(column) == "string"
    return case((is_string, column.op("#>>", return_type=Text())(literal_column("'{}'"))), else_=cast(column, Text))
