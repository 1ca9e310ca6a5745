"""Measures the product on real servers, beside bare limits and peers: `make bench`, or `python -m bench`.

Runs all measurements in interleaved rounds, about two minutes each with the default of 10 s per phase, prints medians
and ratios, and writes JSON and plots to bench/results/. Exits with 1 if a measurement failed.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from bench.speed import limits, product
from bench.speed.cpu import usable_cores
from bench.speed.load import generator_name
from bench.speed.peers.measurements import PEERS, installed_peers, missing_peers
from bench.speed.plots import draw
from bench.speed.results import Machine, Measurement, Plan, Report, Round, summarize
from bench.speed.stack import Bench, new_bench
from bench.speed.table import render
from models.version import version

RESULTS = Path(__file__).parent / "results"
no_deliveries = partial(limits.insert, tables=("memories", "events", "passages"))
no_events = partial(limits.insert, tables=("memories", "deliveries", "passages"))
relaxed_valkey = partial(product.without, valkey_settings={"appendfsync": "everysec"})
relaxed_postgres = partial(product.without, postgres_settings={"synchronous_commit": "off"})
MEASUREMENTS = (
    Measurement("bare", "a bare Starlette app on one core", limits.bare),
    Measurement("accept", "the relay alone", product.accept),
    Measurement("apply", "one worker on a full inbox", product.apply),
    Measurement("apply-2", "two workers on a full inbox", product.apply_with_two),
    Measurement("end-to-end", "accepted and applied with a flat backlog", product.end_to_end),
    Measurement("light", "50 webhooks a second", product.light),
    Measurement("insert", "the same rows by raw batched INSERT", limits.insert),
    Measurement("insert-no-deliveries", "without the rows by which repeats are recognized", no_deliveries),
    Measurement("insert-no-events", "without the rows of the journal", no_events),
    Measurement("valkey-everysec", "end-to-end, with Valkey's log on disk within a second", relaxed_valkey),
    Measurement("postgres-async", "end-to-end, with commits on disk a moment later", relaxed_postgres),
    Measurement("xadd", "the same entries by pipelined XADD", limits.xadd),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen measurements. Returns 1 if one failed in any round."""
    asked = _parser().parse_args(arguments)
    if asked.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: asked.cores])
    chosen = [
        measurement
        for measurement in (*MEASUREMENTS, *installed_peers())
        if not asked.only or measurement.name in asked.only
    ]
    plan = Plan(rounds=asked.rounds, seconds=asked.seconds)
    started_at, machine = datetime.now(UTC), _machine()
    with new_bench() as bench:
        rounds = run(bench, chosen, plan)
    report = Report(
        started_at=started_at,
        version=_version(),
        machine=machine,
        plan=plan,
        rows=summarize(chosen, rounds),
        rounds=rounds,
        not_installed=[name for name in missing_peers() if not asked.only or name in asked.only],
    )
    encoded = msgspec.json.format(msgspec.json.encode(report))
    path: Path = asked.output
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_bytes(encoded + b"\n")
    files = [path.with_suffix(".json"), *draw(report, path)]
    print(encoded.decode() if asked.json else render(report))
    _say(f"Written: {', '.join(map(str, files))}.")
    return int(any(found.failure for found in rounds))


def run(bench: Bench, measurements: Sequence[Measurement], plan: Plan) -> list[Round]:
    """Run all measurements in every round, so that changes of the machine's other load affect all alike."""
    rounds = []
    for number in range(1, plan.rounds + 1):
        for measurement in measurements:
            try:
                figures, failure = measurement.run(bench, plan), ""
            except Exception as error:  # The other measurements go on; the report shows the failure.
                figures, failure = None, f"{type(error).__name__}: {error}"
            found = Round(number=number, name=measurement.name, figures=figures, failure=failure)
            rounds.append(found)
            rate = f"{figures.per_second:,.0f}/s" if figures and figures.per_second else failure or "done"
            _say(f"Round {number} of {plan.rounds}, {measurement.name}: {rate}")
    return rounds


def _version() -> str:
    command = ("git", "describe", "--always", "--dirty")
    try:
        done = subprocess.run(command, cwd=RESULTS.parent, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:
        return version()
    return f"{version()} ({done.stdout.strip()})" if done.returncode == 0 else version()


def _machine() -> Machine:
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), cpu)
    return Machine(
        cores=usable_cores(),
        cpu=cpu,
        python=platform.python_version(),
        load_generator=generator_name(),
        load_average=os.getloadavg()[0],
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return int(text)


def _positive_seconds(text: str) -> float:
    """Parse a duration. wrk takes only whole seconds."""
    if float(text) < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return float(text)


def _parser() -> argparse.ArgumentParser:
    names = [found.name for found in (*MEASUREMENTS, *PEERS)]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=_positive, default=5, help="number of rounds (default: 5)")
    parser.add_argument("--seconds", type=_positive_seconds, default=10.0, help="duration of each phase (default: 10)")
    parser.add_argument(
        "--only", action="append", choices=names, metavar="NAME", help=f"one of {', '.join(names)}; may be repeated"
    )
    parser.add_argument("--cores", type=int, help="use only so many cores for all processes together (Linux)")
    parser.add_argument(
        "--output",
        type=Path,
        default=RESULTS / "latest",
        metavar="PATH",
        help="where to write the results, without a suffix (default: bench/results/latest)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
