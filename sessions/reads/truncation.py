"""Fitting what is read into `max_characters`: long texts and lists are cut, everything else stays. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import msgspec

SMALLEST_PIECE = 100
"""Characters of a text that is read piece by piece: each answer goes on by at least these, however small the budget."""


class LongText(msgspec.Struct, frozen=True, kw_only=True):
    """A text or JSON value of any length, of which only a part was fetched."""

    text: str
    """From `offset` on, as much as could be shown at most; a JSON value that is no string as its JSON text."""
    length: int
    offset: int = 0
    whole: msgspec.Raw | None = None
    """The JSON value exactly as it was sent, if it is short enough to be shown whole."""
    is_json: bool = False
    paged: bool = False
    """Whether the reader can go on at `next_offset`."""

    @property
    def is_empty(self) -> bool:
        """Whether it is a JSON object or list with nothing in it."""
        return self.whole is not None and bytes(self.whole) in (b"{}", b"[]")


def measure(value: Any) -> int:
    """Characters of the value as JSON."""
    return len(msgspec.json.encode(value).decode())


def cut(text: str, room: int, *, from_end: bool = False) -> str:
    """The longest beginning (or end) of the text that takes at most `room` characters as JSON, quotes included."""

    def part(length: int) -> str:
        return text[len(text) - length :] if from_end else text[:length]

    longest = bisect_right(range(len(text) + 1), room, key=lambda length: measure(part(length)))
    return part(max(longest - 1, 0))


def fit(item: Mapping[str, Any], room: int) -> dict[str, Any]:
    """The item with its long texts and lists cut to fit. The short ones stay whole and the long ones share what is
    left; then `truncated` is true, with `next_offset` for the text that can be read on."""
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
