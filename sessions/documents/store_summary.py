"""What somebody would miss if a store were gone: asked before one is replaced, and told of what is in a backup."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple


class StoreSummary(NamedTuple):
    """How many sessions, and when the latest of them was active."""

    sessions: int = 0
    latest_activity_at: datetime | None = None

    def with_session(self, active_at: datetime | None) -> StoreSummary:
        """And one more."""
        latest = self.latest_activity_at
        later = max(latest, active_at) if latest and active_at else latest or active_at
        return StoreSummary(self.sessions + 1, later)
