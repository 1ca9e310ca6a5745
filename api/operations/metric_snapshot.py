"""The numbers of one scrape, before they have the form of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from sessions.postgres.tasks.leases import LeaseCounts

Part = Mapping[str, Any]
"""A part of the status, as `status_probe` returns it."""


class Tallies(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers that all processes keep in Redis."""

    counts: Mapping[str, int]
    """By field: see `models.queue.metrics`."""
    refusals: Mapping[str, int]
    """Rejected requests by cause."""
    states: Sequence[Mapping[str, float]]
    """The state of each running relay process."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one scrape; None for those of a server that does not answer."""

    accepting: bool
    redis: Part
    inbox: Part | None
    workers: Part | None
    tallies: Tallies | None
    postgres_up: bool
    postgres: Part | None
    leases: LeaseCounts | None


Encode = Callable[[Snapshot], bytes]
ChooseFormat = Callable[[str], tuple[Encode, str]]
"""Returns the format that an Accept header prefers: its encoder, and its media type."""
