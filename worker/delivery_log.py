"""The worker's lines about deliveries: one for each that a transaction applied, refused or recognized."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from models.process.log_lines import Fields, LineLog, rounded_ms, session_fingerprint
from sessions.commands.parked_events import code_of
from sessions.rules.event_log import ApplyResult

WITH_CAUSE = frozenset({"rejected", "parked", "failed", "conflict"})


class DeliveryLog(LineLog):
    """Writes the lines of one process. Make it when logging is configured."""

    def __init__(self) -> None:
        super().__init__("worker.deliveries")

    def write_results(self, results: Sequence[ApplyResult]) -> None:
        """Write a line for each result of a transaction, all together. Durations are since the acceptance."""
        if self.is_enabled and results:
            now = datetime.now(UTC)
            self.write([_describe(result, now) for result in results])


def _describe(result: ApplyResult, now: datetime) -> Fields:
    entry, status = result.entry, result.status
    return Fields(
        message=f"{entry.command or 'event'} {status}",
        outcome=status,
        cause=code_of(result.response) or "" if status in WITH_CAUSE else "",
        status=result.http_status,
        delivery_id=entry.delivery_id,
        source=entry.source,
        command=entry.command,
        session=session_fingerprint(entry.session_id) if entry.session_id else "",
        client=entry.client,
        duration_ms=rounded_ms((now - entry.accepted_at).total_seconds()),
    )
