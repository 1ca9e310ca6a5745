"""Counting in a process: buckets of histograms, and counts that are taken, and put back if they could not be stored."""

from __future__ import annotations

from models.queue.metrics import (
    ACCEPT_SECONDS,
    COUNTERS,
    DECIDED,
    HISTOGRAMS,
    MILLIONTHS,
    CountBuffer,
    arguments_of,
)
from relay.process_metrics import GAUGES


def test_a_value_counts_in_the_bucket_of_the_least_bound_that_it_does_not_exceed() -> None:
    buffer = CountBuffer()
    for value in (0.0, 0.001, 0.0011, 300.0, 300.1):
        buffer.observe(ACCEPT_SECONDS, value)
    assert dict(buffer.take()) == {
        "accept_seconds:0.001": 2,
        "accept_seconds:0.0025": 1,
        "accept_seconds:300": 1,
        "accept_seconds:inf": 1,
        "accept_seconds:sum": round(600.1021 * MILLIONTHS),
    }


def test_counts_are_taken_once_and_can_be_put_back() -> None:
    buffer = CountBuffer()
    buffer.count("a")
    buffer.count("a", 2)
    taken = buffer.take()
    assert (dict(taken), dict(buffer.take())) == ({"a": 3}, {})
    buffer.count("a")
    buffer.put_back(taken)
    assert arguments_of(buffer.take()) == ["a", 4]


def test_names_and_fields_are_unique() -> None:
    names = [definition.name for definition in (*COUNTERS, *HISTOGRAMS, *GAUGES)]
    assert len(set(names)) == len(names)
    fields = [field for histogram in HISTOGRAMS for field in (*histogram.fields, histogram.sum_field)]
    fields += [counter.field(value) for counter in COUNTERS for value in counter.values or ("",)]
    assert len(set(fields)) == len(fields)
    assert "accepted" not in DECIDED.values
