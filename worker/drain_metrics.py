"""Counts what a drain has applied, for the metrics that the relays show."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from models.queue.metrics import APPLY_SECONDS, DECIDED, DRAIN_ENTRIES, DRAIN_SECONDS, CountBuffer, Counts
from sessions.rules.event_log import ApplyResult

REPEATED = ("duplicate", "conflict")
"""Statuses of entries that were decided before."""


def count_applied(applied: Sequence[ApplyResult], *, transaction_seconds: float) -> Counts:
    """Count the results of a transaction that was committed just now."""
    buffer = CountBuffer()
    buffer.observe(DRAIN_SECONDS, transaction_seconds)
    buffer.observe(DRAIN_ENTRIES, len(applied))
    now = time.time()
    for status, number in Counter(item.status for item in applied).items():
        buffer.count(DECIDED.field(status), number)
    for item in applied:
        if item.status not in REPEATED:
            # The relay's clock may be ahead of this one.
            buffer.observe(APPLY_SECONDS, max(0.0, now - item.entry.accepted_at.timestamp()))
    return buffer.take()
