"""Pages of lists: opaque cursors that hold the sort key of the last item, and the number of items that fit."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from models.errors import Invalid
from sessions.reads.results import Page
from sessions.reads.truncation import fit, measure

T = TypeVar("T")
RowPosition = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""Value of a `position` column."""


def encode_cursor(position: object) -> str:
    """The position as opaque text that is safe in a URL."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def decode_cursor(cursor: str | None, shape: type[T]) -> T | None:
    """The position that a cursor holds, or None without a cursor. Raises Invalid for a cursor that the relay did not
    issue."""
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        position = msgspec.json.decode(text, type=shape)
        for part in _parts_of(position):
            if isinstance(part, str) and "\0" in part:
                raise ValueError("ids cannot contain NUL")
            # Postgres accepts fewer offsets than ISO 8601, and near the limits of its range UTC is beyond them.
            if isinstance(part, datetime) and part.utcoffset() != timedelta(0):
                raise ValueError("cursors hold times in UTC")
        return position
    except (ValueError, msgspec.DecodeError, binascii.Error, RecursionError) as error:
        raise Invalid(
            "Invalid cursor: the relay did not issue it, or it belongs to another list.",
            field="cursor",
            expected="next_cursor of the previous page",
            hint="Omit it to start from the beginning.",
        ) from error


def decode_position(cursor: str | None) -> int:
    """The journal position that a cursor names, or 0 without a cursor. Raises Invalid."""
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 20 and int(cursor) < 2**63):
        raise Invalid(
            f"Invalid position in a journal: {cursor[:64]!r}.",
            field="after",
            expected="next_cursor of the previous page, or the cursor of an event",
            hint="Omit it to start from the beginning.",
        )
    return int(cursor)


def _parts_of(position: object) -> Iterable[object]:
    if isinstance(position, msgspec.Struct):
        return msgspec.structs.astuple(position)
    return position if isinstance(position, tuple) else (position,)


def fill(entries: Iterable[tuple[object, dict[str, Any] | None]], *, limit: int, room: int) -> Page:
    """A page of at most `limit` items within `room` characters, but at least one item. `entries` are positions and
    items in order, one more than `limit` if there are more; None instead of an item ends the page early. One item takes
    at most half of the room."""
    items: list[dict[str, Any]] = []
    used, position, full = 0, None, False
    for next_position, entry in entries:
        if entry is None:
            full = True
            break
        item = fit(entry, room // 2)
        size = measure(item) + 1
        full = used + size > room and bool(items)
        if full or len(items) == limit:
            break
        items.append(item)
        used, position = used + size, next_position
    else:
        position = None
    return Page(
        items=items,
        next_cursor=None if position is None else encode_cursor(position),
        truncated=full or any("truncated" in item for item in items),
    )
