"""The report of `make bench`: medians and ratios over rounds, and failures that stay visible."""

from __future__ import annotations

from datetime import UTC, datetime

from bench.speed.results import Figures, Machine, Measurement, Plan, Report, Round, summarize
from bench.speed.table import render

RATES = {"bare": (1_000.0, 4_000.0, 2_000.0), "accept": (500.0, 1_000.0, 1_400.0)}
"""Rates in three rounds. The ratios to `bare` are 50, 25 and 70 %."""


def measurement(name: str) -> Measurement:
    """Return a measurement that is never run."""
    return Measurement(name, name, lambda bench, plan: Figures())


def report(rounds: list[Round]) -> Report:
    """Return the report of these rounds."""
    machine = Machine(cores=2, cpu="test", python="3.11", load_generator="wrk", load_average=0.0)
    rows = summarize([measurement(name) for name in dict.fromkeys(found.name for found in rounds)], rounds)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Report(started_at=now, version="1", machine=machine, plan=Plan(rounds=3), rows=rows, rounds=rounds)


def test_ratios_are_medians_of_the_ratios_within_a_round() -> None:
    rounds = [
        Round(number=number, name=name, figures=Figures(per_second=rates[number]))
        for number in range(3)
        for name, rates in RATES.items()
    ]
    bare, accept = report(rounds).rows
    assert (bare.per_second, bare.lowest, bare.highest) == (2_000.0, 1_000.0, 4_000.0)
    assert (accept.per_second, accept.to_bare) == (1_000.0, 0.5)
    assert "50.0%" in render(report(rounds))


def test_a_failed_round_is_reported_and_left_out_of_the_medians() -> None:
    good = Round(number=1, name="accept", figures=Figures(per_second=7.0, notes=["the load generator was saturated"]))
    failed = Round(number=2, name="accept", failure="RuntimeError: 3 webhooks are missing.")
    text = render(report([good, failed]))
    assert report([good, failed]).rows[0].per_second == 7.0
    assert "accept: failed: RuntimeError: 3 webhooks are missing." in text
    assert "accept: the load generator was saturated" in text


def test_a_measurement_that_always_failed_is_reported() -> None:
    failed = [Round(number=number, name="apply", failure="LoadError: It ended.") for number in range(2)]
    text = render(report(failed))
    assert "apply: failed: LoadError: It ended. (2 rounds)" in text
    assert "apply: no round succeeded" in text
