"""Runs the product for long, and checks that what it uses stays flat: `python -m bench.endurance [--minutes 15]`.

By default a relay and a worker per core run at their common full rate. `--rate 100 --maxmemory 64mb` sends at a rate
instead, to a Redis with so much memory. Prints at intervals the rate, the memory of Redis and of each process, the
connections of Postgres and Redis, and the open files. Exits with 1 if one of them is larger at the end than in the
middle, or if a webhook was refused or not answered. The keys that recognize repeats expire after minutes: in runs of
less than about ten, the memory of Redis still grows.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import msgspec
import psutil
from redis import Redis

from bench.speed.cpu import usable_cores
from bench.speed.load import Pressure, pace, press
from bench.speed.product import BACKLOG, check_effects
from bench.speed.stack import VALKEY_SETTINGS, Stack, new_bench

SAMPLES = 180
"""The number of samples in a run, unless that would be more than one a second."""
SHOWN = 15
"""The number of lines that are printed."""
MIDDLE, END = (0.4, 0.6), (0.8, 1.0)
"""The parts of the run that are compared."""
GROWTH = 0.05
"""The share by which a figure may be larger at the end."""
SLACK: Mapping[str, float] = {"MB": 3.0, "files": 5.0, "connections": 2.0}
"""By how much it may be larger in any case, for each unit. Garbage is collected seldom, and pools open connections on
demand."""
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"


class Sample(msgspec.Struct, frozen=True):
    """What is used at one moment."""

    seconds: float
    """Since the start of the run."""
    applied: int
    used: dict[str, float]
    """By name; the last word is the unit."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print and judge."""
    parser = argparse.ArgumentParser(prog="python -m bench.endurance", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--rate", type=float, default=0.0, help="webhooks a second (default: as fast as possible)")
    parser.add_argument("--maxmemory", default=VALKEY_SETTINGS["maxmemory"], help="the memory limit of Redis")
    options = parser.parse_args(arguments)
    seconds = options.minutes * 60
    with new_bench() as bench, bench.stack(valkey_settings={"maxmemory": options.maxmemory}) as stack:
        port = stack.start_relay()
        stack.start_workers(usable_cores())
        with sampling(stack, seconds=seconds) as samples:
            if options.rate:
                pressure = pace(port, per_second=options.rate, seconds=seconds)
            else:
                pressure = press(port, seconds=seconds, must_pause=lambda: stack.backlog() > BACKLOG)
        stack.wait_until_drained()
        check_effects(stack, lowest=pressure.succeeded)
    show(samples)
    return judge(samples, pressure, seconds=seconds)


@contextmanager
def sampling(stack: Stack, *, seconds: float) -> Iterator[list[Sample]]:
    """Collect samples at intervals within the block."""
    samples: list[Sample] = []
    done = threading.Event()
    began_at = time.monotonic()

    def sample() -> None:
        # Nobody else may use its connections, which the load's thread needs.
        with Redis.from_url(stack.valkey.url) as redis, stack.connection() as connection, connection.cursor() as cursor:
            connection.autocommit = True
            while not done.wait(max(1.0, seconds / SAMPLES)):
                cursor.execute(CONNECTIONS)
                used = {
                    "Redis MB": redis.info("memory")["used_memory"] / 1e6,
                    "Redis connections": float(redis.info("clients")["connected_clients"]),
                    "Postgres connections": float(cursor.fetchone()[0]),
                    **processes_use(stack),
                }
                cursor.execute("SELECT last_value FROM deliveries_position_seq")
                samples.append(Sample(time.monotonic() - began_at, cursor.fetchone()[0], used))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def processes_use(stack: Stack) -> dict[str, float]:
    """Return the resident memory and the open files of the relay, and of each kind of process under the worker."""
    used: dict[str, float] = defaultdict(float)
    for group in ("relay", "worker"):
        with suppress(psutil.Error):
            root = psutil.Process(stack.pids[group])
            for process in (root, *root.children(recursive=True)):
                name = group if group == "relay" else kind_of(process, root)
                used[f"{name} MB"] += process.memory_info().rss / 1e6
                used[f"{name} files"] += process.num_fds()
    return dict(used)


def kind_of(process: psutil.Process, supervisor: psutil.Process) -> str:
    """Return the kind of a process of the workers."""
    return "supervisor" if process == supervisor else process.name().partition("-")[0].partition(" ")[0]


def show(samples: Sequence[Sample]) -> None:
    """Print some of the samples, as a table."""
    names = list(samples[-1].used)
    print("  ".join([f"{'minute':>6}", f"{'applied/s':>9}", *names]))
    step = max(1, len(samples) // SHOWN)
    before = samples[0]
    for sample in samples[step::step]:
        rate = (sample.applied - before.applied) / (sample.seconds - before.seconds)
        cells = [f"{sample.used.get(name, 0):>{len(name)},.{'1' if name.endswith('MB') else '0'}f}" for name in names]
        print("  ".join([f"{sample.seconds / 60:6.1f}", f"{rate:9,.0f}", *cells]))
        before = sample


def judge(samples: Sequence[Sample], pressure: Pressure, *, seconds: float) -> int:
    """Print what has grown, and what failed. Returns 1 if anything did."""
    grown = [
        f"{name} grew from {middle:,.1f} to {end:,.1f}"
        for name, (middle, end) in medians(samples, seconds=seconds).items()
        if end > middle * (1 + GROWTH) and end > middle + SLACK[name.rpartition(" ")[2]]
    ]
    print(f"{pressure.succeeded:,} webhooks were accepted in {seconds / 60:g} minutes.", *pressure.notes())
    print("\n".join(grown) if grown else "Nothing grew from the middle to the end.")
    return int(bool(grown) or pressure.load.refused > 0 or pressure.load.broken > 0)


def medians(samples: Sequence[Sample], *, seconds: float) -> dict[str, tuple[float, float]]:
    """Return each figure's median in the middle and at the end."""

    def median(name: str, part: tuple[float, float]) -> float:
        found = [s.used[name] for s in samples if part[0] <= s.seconds / seconds <= part[1] and name in s.used]
        return statistics.median(found)

    return {name: (median(name, MIDDLE), median(name, END)) for name in samples[-1].used}


if __name__ == "__main__":
    sys.exit(main())
