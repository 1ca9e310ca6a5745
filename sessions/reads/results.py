"""What a read gives back, before a door puts it into its own form."""

from __future__ import annotations

from typing import Any

import msgspec


class ReadResult(msgspec.Struct, frozen=True, kw_only=True):
    """A command's result: `data` for programs, `message` for people, one sentence that can be read aloud."""

    data: dict[str, Any]
    message: str


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Part of a list. `next_cursor` continues it; `truncated` says that text or items were cut to fit."""

    items: list[dict[str, Any]]
    next_cursor: str | None = None
    truncated: bool = False
