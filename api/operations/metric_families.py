"""The form of the metrics for Prometheus. Names and labels are an interface: alerts and dashboards refer to them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import get_args

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from api.operations.metric_snapshot import Encode, Part, Snapshot, Tallies
from models.queue.metrics import COUNTERS, HISTOGRAMS, MILLIONTHS, CounterDefinition, HistogramDefinition
from models.version import version
from relay.process_metrics import GAUGES, GaugeDefinition
from relay.rejections import Cause

PREFIX = "session_relay_"
REFUSED = CounterDefinition("requests_refused", "Requests that were rejected.", "cause", get_args(Cause))


def choose_format(accept: str) -> tuple[Encode, str]:
    """Return the format that the Accept header prefers, else the text format: its encoder, and its media type."""
    generate, media_type = choose_encoder(accept)
    return lambda snapshot: generate(_Families(snapshot)), media_type


class _Families(Collector):
    """The families of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Yield all families whose numbers are known."""
        shown = self._snapshot
        yield InfoMetricFamily(f"{PREFIX}build", "The version of the relay.", {"version": version()})
        yield _gauge("accepting", "Whether the scraped process accepts webhooks.", shown.accepting)
        yield _gauge("redis_up", "Whether Redis answers.", shown.redis["state"] == "ok")
        yield _gauge("postgres_up", "Whether Postgres answers.", shown.postgres_up)
        if shown.redis["state"] == "ok":
            yield from _of_redis(shown.redis)
        if shown.inbox is not None:
            yield from _of_inbox(shown.inbox)
        if shown.workers is not None:
            yield from _of_workers(shown.workers)
        if shown.tallies is not None:
            yield from _of_tallies(shown.tallies)
        if shown.postgres is not None:
            yield from _of_postgres(shown.postgres)
        if shown.leases is not None:
            yield _gauge("claims", "Tasks that agents have claimed.", shown.leases.held)
            yield _gauge(
                "claims_overdue", "Claims whose lease has expired, and which no sweeper ended.", shown.leases.overdue
            )


def _of_redis(redis: Part) -> Iterator[Metric]:
    yield _gauge("redis_durable", "Whether Redis' settings lose no acknowledged write.", redis["durable"])
    yield _gauge("redis_memory_bytes", "Memory that Redis uses.", redis["memory_bytes"])
    if (limit := redis["memory_limit_bytes"]) is not None:
        yield _gauge("redis_memory_limit_bytes", "Redis' maxmemory. Missing without a limit.", limit)
        yield _gauge("redis_memory_ratio", "The used share of Redis' maxmemory.", redis["memory_bytes"] / limit)


def _of_inbox(inbox: Part) -> Iterator[Metric]:
    waiting = GaugeMetricFamily(f"{PREFIX}backlog_entries", "Commands that wait to be applied.", labels=["shard"])
    ages = GaugeMetricFamily(
        f"{PREFIX}backlog_age_seconds", "Age of the oldest command that waits; 0 if none does.", labels=["shard"]
    )
    for item in inbox["shards"]:
        shard = [f"{item['shard']:02d}"]
        waiting.add_metric(shard, item["waiting"])
        ages.add_metric(shard, item["oldest_seconds"] or 0)
    yield waiting
    yield ages
    yield _gauge("backlog_limit_entries", "MAX_BACKLOG: above it, webhooks are rejected.", inbox["limit"])


def _of_workers(workers: Part) -> Iterator[Metric]:
    yield _gauge("workers", "Registered worker processes. A killed one counts for some minutes.", workers["alive"])
    yield _gauge("workers_busy", "Worker processes that apply commands.", workers["busy"])
    yield _gauge("sweeper_up", "Whether a sweeper runs, and so a supervisor of workers.", workers["sweeper"])


def _of_tallies(tallies: Tallies) -> Iterator[Metric]:
    for definition in COUNTERS:
        counts = {value: tallies.counts.get(definition.field(value), 0) for value in definition.values or ("",)}
        yield _counter(definition, counts)
    yield _counter(REFUSED, {cause: tallies.refusals.get(cause, 0) for cause in REFUSED.values})
    for histogram in HISTOGRAMS:
        yield _histogram(histogram, tallies)
    yield _gauge("processes", "Relay processes that reported within the last 10 seconds.", len(tallies.states))
    for gauge in GAUGES:
        yield _sum(gauge, tallies)


def _of_postgres(postgres: Part) -> Iterator[Metric]:
    yield _gauge("postgres_durable", "Whether Postgres' settings lose no committed data.", postgres["durable"])
    is_current = postgres["revision"] == postgres["needed_revision"]
    yield _gauge("schema_current", "Whether the database has the schema of this version.", is_current)
    yield _gauge("dead_letters", "Deliveries that could not be applied.", postgres["dead_letters"])
    yield _gauge("parked_events", "Events that their session did not accept.", postgres["parked_events"])
    if (search := postgres["search"]) is not None:
        yield _gauge("search_by_meaning", "Whether search compares meanings.", search["method"] == "hybrid")
        yield _gauge("passages_to_embed", "Texts without a vector, found only by their words.", search["not_embedded"])


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, meaning, float(value))


def _counter(definition: CounterDefinition, counts: dict[str, int]) -> Metric:
    labels = [definition.label] if definition.label else []
    family = CounterMetricFamily(PREFIX + definition.name, definition.meaning, labels=labels)
    for value, count in counts.items():
        family.add_metric([value] if definition.label else [], count)
    return family


def _histogram(definition: HistogramDefinition, tallies: Tallies) -> Metric:
    numbers = accumulate(tallies.counts.get(field, 0) for field in definition.fields)
    buckets = [
        (str(floatToGoString(bound)), float(number))  # type: ignore[no-untyped-call]
        for bound, number in zip((*definition.bounds, float("inf")), numbers, strict=True)
    ]
    total = tallies.counts.get(definition.sum_field, 0) / MILLIONTHS
    return HistogramMetricFamily(PREFIX + definition.name, definition.meaning, buckets=buckets, sum_value=total)


def _sum(definition: GaugeDefinition, tallies: Tallies) -> Metric:
    """Return a gauge, which is a sum over all processes."""
    labels = [definition.label] if definition.label else []
    family = GaugeMetricFamily(PREFIX + definition.name, definition.meaning, labels=labels)
    for value in definition.values or ("",):
        field = f"{definition.name}:{value}" if value else definition.name
        family.add_metric([value] if value else [], sum(state.get(field, 0) for state in tallies.states))
    return family
