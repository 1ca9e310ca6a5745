"""CPU time by group of processes: relay, worker, Postgres, Valkey."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress

import psutil

FOREIGN_SHARE = 0.1
"""The share of the machine above which other programs make a measurement doubtful."""


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and its descendants, including those that have ended."""
    total = 0.0
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total


class CpuMeter:
    """Measures the CPU time of groups from its creation on, and that of all other processes of the machine.

    `worker-1` and `worker-2` are one group.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._before = self._read()
        self._machine_before = _busy_seconds()
        self._own_before = time.process_time()
        self._began_at = time.monotonic()

    def seconds(self) -> dict[str, float]:
        """Return the CPU seconds of each group since the start."""
        now = self._read()
        return {name: now[name] - before for name, before in self._before.items()}

    def per_item_ms(self, count: int) -> dict[str, float]:
        """Return the CPU milliseconds of each group for each of `count` items."""
        return {name: spent * 1_000 / max(count, 1) for name, spent in self.seconds().items()}

    def notes(self, *, load_seconds: float = 0.0) -> list[str]:
        """Say if other programs used the machine. `load_seconds` is the CPU time of the load generator."""
        cores, elapsed = psutil.cpu_count() or 1, time.monotonic() - self._began_at
        own = sum(self.seconds().values()) + load_seconds + time.process_time() - self._own_before
        share = (_busy_seconds() - self._machine_before - own) / (cores * elapsed)
        return [f"other programs used {share:.0%} of the machine"] if share > FOREIGN_SHARE else []

    def _read(self) -> dict[str, float]:
        groups = dict.fromkeys((name.partition("-")[0] for name in self._pids), 0.0)
        for name, pid in self._pids.items():
            groups[name.partition("-")[0]] += cpu_seconds(pid)
        return groups


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))
