"""Passages for tests."""

from __future__ import annotations

from datetime import UTC, datetime

from sessions.search.passages import Passage


def passage() -> Passage:
    """Return a passage without a text."""
    at = datetime(2026, 11, 1, tzinfo=UTC)
    return Passage(area="memories", session_id="s", item_id="i", number=0, start=0, text="", label="", at=at)
