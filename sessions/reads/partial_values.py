"""Long values that are read in part: the columns that a store returns for them, and the LongText made of these.

A store that holds the whole value cuts it here; any other selects the same columns itself.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from msgspec import Raw

from sessions.reads.truncation import LongText


class Columns(Protocol):
    """Values by name: a Postgres row or a dictionary."""

    def __getitem__(self, name: str, /) -> Any:
        """The value; raises KeyError."""

    def get(self, name: str, /) -> Any:
        """The value, or None."""


def text_columns(text: str | None, name: str, *, room: int, offset: int = 0) -> dict[str, Any]:
    """At most `room` characters of a text from `offset` on, and its length."""
    if text is None:
        return {f"{name}_text": None, f"{name}_length": None}
    return {f"{name}_text": text[offset : offset + room], f"{name}_length": len(text)}


def json_columns(value: Raw | None, name: str, *, room: int, offset: int = 0) -> dict[str, Any]:
    """The JSON value if it has at most `room` characters, and a part of its text."""
    if value is None:
        return text_columns(None, name, room=room)
    verbatim = bytes(value).decode()
    is_string = verbatim.startswith('"')
    readable = msgspec.json.decode(value, type=str) if is_string else verbatim
    return {
        **text_columns(readable, name, room=room, offset=offset),
        f"{name}_whole": value if len(verbatim) <= room else None,
        f"{name}_is_json": not is_string,
    }


def long_text(columns: Columns, name: str, *, offset: int = 0, paged: bool = False) -> LongText | None:
    """The LongText of such columns; None for a null value."""
    if columns[f"{name}_length"] is None:
        return None
    return LongText(
        text=columns[f"{name}_text"],
        length=columns[f"{name}_length"],
        offset=offset,
        whole=columns.get(f"{name}_whole"),
        is_json=bool(columns.get(f"{name}_is_json")),
        paged=paged,
    )
