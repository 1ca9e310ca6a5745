"""Draws a report as bar charts, if matplotlib is installed."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from bench.speed.results import Report


def draw(report: Report, path: Path) -> list[Path]:
    """Write `path` with `-rates.png` and `-cpu.png` appended. Returns the files, none without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return []
    importlib.import_module("matplotlib").use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    files = []
    rates = [row for row in report.rows if row.per_second is not None]
    if rates:
        figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(rates) + 1.5), layout="constrained")
        values = [row.per_second or 0.0 for row in rates]
        spread = [
            [value - (row.lowest or 0) for row, value in zip(rates, values, strict=True)],
            [(row.highest or 0) - value for row, value in zip(rates, values, strict=True)],
        ]
        bars = axes.barh([row.name for row in rates], values, xerr=spread)
        axes.bar_label(bars, fmt="{:,.0f}", padding=4)
        axes.set(
            xscale="log",
            xlim=(min(10.0, *values) / 2, max(values) * 3),
            xlabel="webhooks per second: median, lowest and highest (logarithmic)",
        )
        files.append(_save(figure, axes, path.with_name(f"{path.name}-rates.png")))
    costs = [row for row in report.rows if row.cpu_ms]
    if costs:
        figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(costs) + 1.5), layout="constrained")
        left = [0.0] * len(costs)
        for name in dict.fromkeys(group for row in costs for group in row.cpu_ms):
            widths = [row.cpu_ms.get(name, 0.0) for row in costs]
            axes.barh([row.name for row in costs], widths, left=left, label=name)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes.set(xlabel="CPU milliseconds per webhook")
        axes.legend()
        files.append(_save(figure, axes, path.with_name(f"{path.name}-cpu.png")))
    return files


def _save(figure: Any, axes: Any, path: Path) -> Path:
    axes.invert_yaxis()
    figure.savefig(path, dpi=120)
    return path
