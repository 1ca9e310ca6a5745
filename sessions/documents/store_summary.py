"""Summary of a store's sessions, shown before the store is replaced and for a backup."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple


class StoreSummary(NamedTuple):
    """The number of sessions, and the time of the latest activity."""

    sessions: int = 0
    latest_activity_at: datetime | None = None

    def with_session(self, active_at: datetime | None) -> StoreSummary:
        """The summary with one more session."""
        latest = self.latest_activity_at
        later = max(latest, active_at) if latest and active_at else latest or active_at
        return StoreSummary(self.sessions + 1, later)
