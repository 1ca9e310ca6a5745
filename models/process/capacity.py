"""Determines how many processes this machine, or the container, has the processor time and the memory for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

MAX_PROCESSES = 16
"""More workers than shards would stand by; so many relays use all connections of a usual Postgres."""
MEMORY_PER_PROCESS = 256 * 1_048_576
"""Several times what a process takes when idle."""

_Files = dict[str, str]


@cache
def usable_processes() -> int:
    """Return the number of processes that can run at the same time: the cores that this process may use, by its
    affinity and the CPU quota of its container, fewer if the container has little memory; from 1 to MAX_PROCESSES."""
    return count_processes(affinity=_count_allowed_cores(), root=Path("/"))


def count_processes(*, affinity: int, root: Path) -> int:
    """Return the number for a process with so many cores, whose cgroup is described by the files under `root`."""
    limits: list[float] = [affinity, MAX_PROCESSES]
    for folder in _cgroup_folders(root):
        limits += _cpu_limits(folder)
        limits += (size // MEMORY_PER_PROCESS for size in _memory_limits(folder))
    return max(1, int(min(limits)))


def _count_allowed_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS has no affinity.


def _cgroup_folders(root: Path) -> Iterator[Path]:
    """Yield the folders of this process' control groups, and of all groups around them, whose limits apply as well. In
    a container some may be missing: it sees its own group as the outermost one."""
    mount = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and not {"cpu", "memory"} & set(controllers.split(",")):
            continue
        relative = PurePosixPath(path.lstrip("/"))
        for part in (relative, *relative.parents):
            if ".." not in part.parts:
                yield mount / controllers / part


def _cpu_limits(folder: Path) -> Iterator[float]:
    """Yield the cores that a group's quota allows. A part of a core counts as a whole one."""
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    if not period:
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    if (allowed := _number(quota)) and (whole := _number(period)):
        yield -(-allowed // whole)


def _memory_limits(folder: Path) -> Iterator[int]:
    for name in ("memory.max", "memory.limit_in_bytes"):
        if size := _number(_read(folder / name)):
            yield size


def _number(text: str) -> int | None:
    """Return a positive number. `max` and -1 mean no limit."""
    return int(text) if text.isascii() and text.isdigit() and int(text) else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
