"""Measures Redis' memory at full rate: `python -m bench.endurance [--minutes 15]`, with the load of the bench.

The relay and one worker run at their common rate. Prints the rate and the used memory for each minute, and the last
minutes' growth. Exits with 1 if the memory still grows by more than a twentieth from the middle to the end, or if a
webhook was refused.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence

from bench.speed.load import press
from bench.speed.product import BACKLOG, check_effects
from bench.speed.stack import new_bench

MINUTE = 60.0
FLAT_SHARE = 0.05


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.endurance", description=__doc__)
    parser.add_argument("--minutes", type=int, default=15)
    minutes: int = parser.parse_args(arguments).minutes
    samples: list[list[int]] = [[] for _ in range(minutes)]
    applied = [0] * minutes
    with new_bench() as bench, bench.stack() as stack:
        port = stack.start_relay()
        stack.start_workers(1)
        began_at = time.monotonic()

        def must_pause() -> bool:
            minute = min(minutes - 1, int((time.monotonic() - began_at) / MINUTE))
            samples[minute].append(int(stack.redis.info("memory")["used_memory"]))
            applied[minute] = stack.applied()
            return stack.backlog() > BACKLOG

        pressure = press(port, seconds=minutes * MINUTE, must_pause=must_pause)
        stack.wait_until_drained()
        check_effects(stack, lowest=pressure.succeeded)
    medians = [statistics.median(found) for found in samples]
    for minute, (total, used) in enumerate(zip(applied, medians, strict=True)):
        rate = (total - (applied[minute - 1] if minute else 0)) / MINUTE
        print(f"minute {minute + 1:2}: {rate:,.0f} applied per second, {used / 1e6:,.1f} MB used")
    growth = statistics.median(samples[-1]) / statistics.median(samples[minutes // 2]) - 1
    print(f"From the middle to the end the memory grew by {growth:.1%}.", *pressure.notes())
    return int(growth > FLAT_SHARE or pressure.load.refused > 0)


if __name__ == "__main__":
    sys.exit(main())
