"""Scrapes: snapshots to encode, and the parsed text of `/metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import httpx
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from api.operations.metric_families import choose_format
from api.operations.metric_snapshot import Snapshot, Tallies
from models.queue.metrics import COUNTS_KEY
from sessions.postgres.tasks.leases import LeaseCounts

SHARD_COUNT = 16
UP = ("up", (("job", "session-relay"),))
"""The sample that Prometheus itself adds to each scrape."""


Series = tuple[str, tuple[tuple[str, str], ...]]
"""A name and sorted labels."""


class Scrape(NamedTuple):
    """The samples of one scrape."""

    at: float
    samples: Mapping[Series, float]

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of a sample, without the prefix of its name; None if it is missing."""
        return self.samples.get((f"session_relay_{name}", tuple(sorted(labels.items()))))

    @property
    def names(self) -> set[str]:
        """The names of all samples."""
        return {name for name, _ in self.samples}


def parse(text: str, *, at: float = 0.0) -> Scrape:
    """Parse the text of a scrape."""
    return Scrape(
        at,
        {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        },
    )


def scrape(client: httpx.Client, *, at: float = 0.0) -> Scrape:
    """Get and parse `/metrics`."""
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    return parse(answer.text, at=at)


def stored_counts(redis: Redis) -> dict[str, int]:
    """Return the counts that all processes have added."""
    found = cast("dict[bytes, bytes]", redis.hgetall(COUNTS_KEY))
    return {field.decode(): int(number) for field, number in found.items()}


def snapshot(**changes: Any) -> Snapshot:
    """Return a snapshot of a healthy relay, with these changes."""
    shards = [{"shard": shard, "waiting": 0, "oldest_seconds": None} for shard in range(SHARD_COUNT)]
    healthy: dict[str, Any] = {
        "accepting": True,
        "redis": {"state": "ok", "durable": True, "memory_bytes": 10, "memory_limit_bytes": 40},
        "inbox": {"limit": 100, "shards": shards},
        "workers": {"alive": 2, "busy": 1, "sweeper": True},
        "tallies": Tallies(counts={}, refusals={}, states=[]),
        "postgres_up": True,
        "postgres": {
            "durable": True,
            "revision": "1",
            "needed_revision": "1",
            "dead_letters": 0,
            "parked_events": 0,
            "search": {"method": "hybrid", "not_embedded": 0},
        },
        "leases": LeaseCounts(held=0, overdue=0),
    }
    return Snapshot(**healthy | changes)


def encoded(shown: Snapshot, *, accept: str = "") -> str:
    """Return the text of a snapshot."""
    encode, _ = choose_format(accept)
    return encode(shown).decode()
