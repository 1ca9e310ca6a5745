"""Reading long columns in part: what is selected for `sessions.reads.partial_values.long_text`.

JSON that senders gave is selected as text, so that it comes back exactly as it was sent.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw
from sqlalchemy import ColumnElement, Dialect, Text, TypeDecorator, case, cast, func, literal_column


class Verbatim(TypeDecorator[Raw]):
    """To select JSON as the text that it is; the driver would decode it."""

    impl = Text
    cache_ok = True

    def process_result_value(self, value: str | None, dialect: Dialect) -> Raw | None:
        """The text, ready to be put into other JSON."""
        return None if value is None else Raw(value.encode())


def text_excerpt(column: Any, name: str, *, room: int, offset: Any = 0) -> list[ColumnElement[Any]]:
    """Columns for at most `room` characters of a text from `offset` on."""
    return [
        func.substr(column, offset + 1, room).label(f"{name}_text"),
        func.char_length(column).label(f"{name}_length"),
    ]


def json_excerpt(column: Any, name: str, *, room: int, offset: int = 0) -> list[ColumnElement[Any]]:
    """Columns for a JSON value if it has at most `room` characters, else for a part of its text."""
    verbatim = cast(column, Verbatim)
    is_string = func.json_typeof(column) == "string"
    readable = case((is_string, column.op("#>>", return_type=Text())(literal_column("'{}'"))), else_=cast(column, Text))
    return [
        *text_excerpt(readable, name, room=room, offset=offset),
        case((func.char_length(verbatim) <= room, verbatim)).label(f"{name}_whole"),
        (~is_string).label(f"{name}_is_json"),
    ]
