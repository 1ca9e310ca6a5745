"""Truncates reads to `max_characters`: long texts and lists are cut, everything else stays. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import msgspec

SMALLEST_PIECE = 100
"""Characters of a paged text that each page has at least, so that reading advances however small the budget."""


class LongText(msgspec.Struct, frozen=True, kw_only=True):
    """A text or JSON value of any length, of which only a part was fetched."""

    text: str
    """At most as much as could be shown, from `offset` on; JSON values other than strings are JSON text."""
    length: int
    offset: int = 0
    whole: msgspec.Raw | None = None
    """The JSON value exactly as it was sent, if it is short enough to be shown whole."""
    is_json: bool = False
    paged: bool = False
    """True if the reader can continue at `next_offset`."""

    @property
    def is_empty(self) -> bool:
        """True for an empty JSON object or list."""
        return self.whole is not None and bytes(self.whole) in (b"{}", b"[]")


def measure(value: Any) -> int:
    """The length of the value as JSON, in characters."""
    return len(msgspec.json.encode(value).decode())


def cut(text: str, room: int, *, from_end: bool = False) -> str:
    """The longest prefix (or suffix) of the text that takes at most `room` characters as JSON, quotes included."""

    def part(length: int) -> str:
        return text[len(text) - length :] if from_end else text[:length]

    longest = bisect_right(range(len(text) + 1), room, key=lambda length: measure(part(length)))
    return part(max(longest - 1, 0))


def fit(item: Mapping[str, Any], room: int) -> dict[str, Any]:
    """Cut the item's long texts and lists to fit. Short ones stay whole; long ones share the room that is left. Then
    `truncated` is true, with `next_offset` for a text that can be continued."""
    elastic = {name: value for name, value in item.items() if isinstance(value, LongText | list)}
    left = room - measure({name: value for name, value in item.items() if name not in elastic})
    left -= sum(measure(name) + len(":,") for name in elastic)
    fitted: dict[str, Any] = {}
    marks: dict[str, Any] = {}
    for name in sorted(elastic, key=lambda name: _size(elastic[name])):
        share = max(left // (len(elastic) - len(fitted)), 0)
        fitted[name], marks_of_one = _shorten(elastic[name], share)
        marks |= marks_of_one
        left -= measure(fitted[name])
    return {name: fitted.get(name, value) for name, value in item.items()} | marks


def _size(value: LongText | list[Any]) -> int:
    if isinstance(value, list):
        return measure(value)
    return measure(value.text if value.whole is None else value.whole)


def _shorten(value: LongText | list[Any], share: int) -> tuple[Any, dict[str, Any]]:
    if isinstance(value, list):
        kept = value
        while kept and measure(kept) > share:
            kept = kept[: len(kept) * 3 // 4]
        return kept, {"truncated": True} if len(kept) < len(value) else {}
    share = max(share, SMALLEST_PIECE) if value.paged else share
    if value.whole is not None and value.offset == 0 and measure(value.whole) <= share:
        return value.whole, {}
    piece = cut(value.text, share)
    end = value.offset + len(piece)
    marks: dict[str, Any] = {"truncated": True} if end < value.length else {}
    if value.paged and end < value.length:
        marks["next_offset"] = end
    if value.paged and value.is_json:
        marks["encoding"] = "json"
    return piece, marks
