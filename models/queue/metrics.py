"""Counts that all processes keep together: their names, and their form in Redis.

Each process counts in its memory and adds what it has counted to one hash, in blocks. So any relay can show the counts
of all, also those of workers, which serve no port, and of processes that have ended.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, get_args

from models.field_types import DeliveryStatus

COUNTS_KEY = "sr:metrics"
"""A hash from each field to a whole number, which only grows."""
PROCESSES_KEY = "sr:metrics:processes"
"""A hash from each relay process to the second of its last report and, as JSON, the state that it reported."""
REPORTED_SECONDS = 10
"""After that time without a report, a process counts as gone."""
MILLIONTHS = 1_000_000
"""Sums are kept in whole millionths: floating-point sums in Redis would lose digits."""

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
ENTRIES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)


class CounterDefinition(NamedTuple):
    """A counter, or one for each value of its label."""

    name: str
    """Without the prefix and `_total`."""
    meaning: str
    label: str = ""
    values: tuple[str, ...] = ()

    def field(self, value: str = "") -> str:
        """The field of COUNTS_KEY."""
        return f"{self.name}:{value}" if value else self.name


class HistogramDefinition(NamedTuple):
    """A histogram, with the upper bounds of its buckets."""

    name: str
    meaning: str
    bounds: tuple[float, ...]
    fields: tuple[str, ...]
    """The field of each bucket, and of the one without a bound. They name the bounds, so that versions with other
    bounds can run side by side."""
    sum_field: str


def _histogram(name: str, meaning: str, bounds: tuple[float, ...]) -> HistogramDefinition:
    fields = tuple(f"{name}:{bound:g}" for bound in (*bounds, float("inf")))
    return HistogramDefinition(name, meaning, bounds, fields, f"{name}:sum")


ACCEPTED = CounterDefinition("webhooks_accepted", "Webhooks and commands stored in the inbox.")
REPEATED = CounterDefinition("webhooks_repeated", "Webhooks that had been accepted before.")
SERVER_ERRORS = CounterDefinition(
    "server_errors",
    "Requests answered with 503, as a server is away or has no room, or with 500, because of a bug.",
    "status",
    ("500", "503"),
)
DECIDED = CounterDefinition(
    "deliveries_decided",
    "Deliveries that a worker has decided. Repetitions are duplicates.",
    "status",
    (*(status for status in get_args(DeliveryStatus) if status != "accepted"), "duplicate", "conflict"),
)
LEASES_EXPIRED = CounterDefinition("leases_expired", "Tasks whose agent fell silent.")
PASSAGES_EMBEDDED = CounterDefinition("passages_embedded", "Texts for which vectors were made.")
COUNTERS = (ACCEPTED, REPEATED, SERVER_ERRORS, DECIDED, LEASES_EXPIRED, PASSAGES_EMBEDDED)

ACCEPT_SECONDS = _histogram(
    "accept_seconds",
    "Time from a request until it is stored, without the time for which its body was awaited.",
    SECONDS,
)
APPLY_SECONDS = _histogram("apply_seconds", "Time from the acceptance of a delivery until it is committed.", SECONDS)
DRAIN_SECONDS = _histogram("drain_seconds", "Duration of a worker's transaction.", SECONDS)
PUSH_ENTRIES = _histogram("push_entries", "Entries that a relay pushed with one call.", ENTRIES)
DRAIN_ENTRIES = _histogram("drain_entries", "Entries that a worker applied in one transaction.", ENTRIES)
HISTOGRAMS = (ACCEPT_SECONDS, APPLY_SECONDS, DRAIN_SECONDS, PUSH_ENTRIES, DRAIN_ENTRIES)

ADD_SCRIPT = """#!lua flags=allow-oom
for i = 1, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
"""
"""Adds numbers to the fields of COUNTS_KEY. Works without free memory, when counts matter most. ARGV: fields and
numbers."""

Counts = Mapping[str, int]


class CountBuffer:
    """Counts of this process that have not been added in Redis. Counting takes less than a microsecond."""

    def __init__(self) -> None:
        self._counts: defaultdict[str, int] = defaultdict(int)

    def count(self, field: str, number: int = 1) -> None:
        """Add to a field."""
        self._counts[field] += number

    def observe(self, histogram: HistogramDefinition, value: float) -> None:
        """Add a value to a histogram."""
        counts = self._counts
        counts[histogram.fields[bisect_left(histogram.bounds, value)]] += 1
        counts[histogram.sum_field] += int(value * MILLIONTHS)

    def take(self) -> Counts:
        """Return all counts, and begin anew."""
        taken, self._counts = self._counts, defaultdict(int)
        return taken

    def put_back(self, counts: Counts) -> None:
        """Add counts again that were taken, but not added in Redis."""
        for field, number in counts.items():
            self._counts[field] += number


class Scripting(Protocol):
    """A Redis client, or a pipeline of one."""

    def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Run a script."""


def add_counts(redis: Scripting, counts: Counts) -> Any:
    """Add counts in Redis. Raises RedisError; then they may have been added or not."""
    return redis.eval(ADD_SCRIPT, 1, COUNTS_KEY, *arguments_of(counts))


def arguments_of(counts: Counts) -> list[str | int]:
    """Return the arguments of ADD_SCRIPT."""
    return [part for item in counts.items() for part in item]
