"""Results of reads, before an interface serializes them."""

from __future__ import annotations

from typing import Any

import msgspec


class ReadResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a command: `data` for programs; `message` for people, one sentence fit to be read aloud."""

    data: dict[str, Any]
    message: str


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Part of a list. `next_cursor` continues it; `truncated` means that texts or items were cut to fit."""

    items: list[dict[str, Any]]
    next_cursor: str | None = None
    truncated: bool = False
    notes: dict[str, Any] = {}
    """Further fields of the answer, about the list as a whole."""
    is_incomplete: bool = False
    """Whether a search that found nothing may find something later: not all meanings can be compared yet."""
