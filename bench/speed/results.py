"""The figures of measurements, and their medians over all rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from bench.speed.stack import Bench


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The extent of a run."""

    rounds: int = 5
    seconds: float = 10.0
    """The duration of each phase."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a measurement in one round."""

    per_second: float | None = None
    milliseconds: dict[str, float] = {}
    """Latencies by name."""
    cpu_ms: dict[str, float] = {}
    """CPU time per webhook by group of processes."""
    others: dict[str, float] = {}
    notes: list[str] = []
    """What makes the figures doubtful."""


class Measurement(NamedTuple):
    """A measurement, by the name under which it is selected."""

    name: str
    description: str
    run: Callable[[Bench, Plan], Figures]


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a measurement in a round: figures or a failure."""

    number: int
    name: str
    figures: Figures | None = None
    failure: str = ""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures depend on."""

    cores: int
    cpu: str
    python: str
    load_generator: str
    load_average: float
    """Over the minute before the start."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The medians of a measurement over the rounds in which it succeeded."""

    name: str
    description: str
    rounds: int
    per_second: float | None = None
    lowest: float | None = None
    highest: float | None = None
    to_bare: float | None = None
    """The median of the ratios within a round to `bare`, as for `to_insert`."""
    to_insert: float | None = None
    product: float | None = None
    """How many times this rate `end-to-end` reaches."""
    milliseconds: dict[str, float] = {}
    cpu_ms: dict[str, float] = {}
    others: dict[str, float] = {}
    notes: list[str] = []
    """All failures and doubts, each with the number of rounds."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All results of a run."""

    started_at: datetime
    version: str
    machine: Machine
    plan: Plan
    rows: list[Row]
    rounds: list[Round]
    not_installed: list[str] = []
    """Packages of peers that are missing."""


def summarize(measurements: Sequence[Measurement], rounds: Sequence[Round]) -> list[Row]:
    """Return a row for each measurement."""
    return [_row(measurement, rounds) for measurement in measurements]


def _row(measurement: Measurement, rounds: Sequence[Round]) -> Row:
    mine = [found for found in rounds if found.name == measurement.name]
    good = [found.figures for found in mine if found.figures]
    others = _medians(figures.others for figures in good)
    if measurement.name == "apply-2" and (ratio := _ratio("apply-2", "apply", rounds)) is not None:
        others["apply-2 / apply"] = ratio
    rates = [figures.per_second for figures in good if figures.per_second is not None]
    notes = [f"failed: {found.failure}" for found in mine if found.failure]
    notes += [note for figures in good for note in figures.notes]
    return Row(
        name=measurement.name,
        description=measurement.description,
        rounds=len(good),
        per_second=_median(rates),
        lowest=min(rates, default=None),
        highest=max(rates, default=None),
        to_bare=_ratio(measurement.name, "bare", rounds),
        to_insert=_ratio(measurement.name, "insert", rounds),
        product=_ratio("end-to-end", measurement.name, rounds),
        milliseconds=_medians(figures.milliseconds for figures in good),
        cpu_ms=_medians(figures.cpu_ms for figures in good),
        others=others,
        notes=_count(notes),
    )


def _ratio(name: str, other: str, rounds: Iterable[Round]) -> float | None:
    rates = {(found.number, found.name): found.figures.per_second for found in rounds if found.figures}
    ratios = []
    for (number, measured), rate in rates.items():
        limit = rates.get((number, other))
        if measured == name and rate is not None and limit:
            ratios.append(rate / limit)
    return _median(ratios)


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _medians(given: Iterable[dict[str, float]]) -> dict[str, float]:
    collected: dict[str, list[float]] = {}
    for values in given:
        for name, value in values.items():
            collected.setdefault(name, []).append(value)
    return {name: statistics.median(values) for name, values in collected.items()}


def _count(notes: Sequence[str]) -> list[str]:
    """Merge notes that differ only in their numbers."""
    groups: dict[str, list[str]] = {}
    for note in notes:
        groups.setdefault("".join(letter for letter in note if not letter.isdigit()), []).append(note)
    return [f"{found[0]} ({len(found)} rounds)" if len(found) > 1 else found[0] for found in groups.values()]
