"""Measures the CPU time of session-cli with a running relay: `python -m bench.cli [SESSION_ID [WORD]]`.

Finds the relay as session-cli does. Prints medians of 15 runs each, within a minute, and their
ratios to `--version`.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

PROGRAM = Path(__file__).resolve().parent.parent / "bin" / "session-cli"
RUNS = 15
LIMIT_SECONDS = 0.25
"""The limit of CPU time for commands that need no relay."""


class Cost(NamedTuple):
    """Medians of all runs, in seconds."""

    cpu: float
    wall: float


def measure(*arguments: str) -> Cost:
    """Run a command line RUNS times. Raises CalledProcessError if it fails."""
    costs = []
    for _ in range(RUNS):
        before, started_at = _spent_by_children(), time.perf_counter()
        subprocess.run([PROGRAM, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)  # noqa: S603
        costs.append(Cost(cpu=_spent_by_children() - before, wall=time.perf_counter() - started_at))
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))


def _spent_by_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    """Print a line for each command. Returns 1 if `--version` or `--help` exceeds the limit."""
    session_id = sys.argv[1] if len(sys.argv) > 1 else ""
    word = sys.argv[2] if len(sys.argv) > 2 else "solar"
    lines = [["--version"], ["--help"]]
    if subprocess.run([PROGRAM, "list"], capture_output=True, check=False).returncode == 0:  # noqa: S603
        shown = [["show", session_id]] if session_id else []
        lines += [["list"], *shown, ["search-conversations", word]]
    else:
        print("No relay was found: only commands that need no relay are measured.")
    costs = {" ".join(line): measure(*line) for line in lines}
    least = costs["--version"]
    print(f"{'command':40} {'CPU ms':>8} {'ratio':>6} {'wall ms':>8} {'ratio':>6}")
    for line, cost in costs.items():
        ratios = f"{cost.cpu / least.cpu:6.1f} {cost.wall * 1000:8.0f} {cost.wall / least.wall:6.1f}"
        print(f"{line:40} {cost.cpu * 1000:8.0f} {ratios}")
    return int(max(costs["--version"].cpu, costs["--help"].cpu) > LIMIT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
