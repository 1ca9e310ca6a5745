"""The number of processes by default: what the machine, or the container, has room for."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import SettingsError
from models.process.capacity import MAX_PROCESSES, count_processes, usable_processes
from models.settings import read_settings

MEBIBYTE = 1_048_576


@pytest.mark.parametrize(
    ("affinity", "files", "expected"),
    [
        (6, {}, 6),
        (64, {}, MAX_PROCESSES),
        # Docker with cgroup v2, whose own group is the outermost one that it sees.
        (64, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        (64, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, MAX_PROCESSES),
        (64, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "150000 100000"}, 2),
        (64, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "10000 100000"}, 1),
        (2, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "800000 100000"}, 2),
        # A service of systemd: the quota is that of a group around it.
        (
            8,
            {
                "proc/self/cgroup": "0::/a.slice/b.service",
                "sys/fs/cgroup/a.slice/cpu.max": "300000 100000",
                "sys/fs/cgroup/a.slice/b.service/cpu.max": "max 100000",
            },
            3,
        ),
        # Docker with cgroup v1, which shows the host's path but mounts its own group.
        (
            8,
            {
                "proc/self/cgroup": "5:cpuset:/x\n4:cpu,cpuacct:/docker/0123\n1:name=systemd:/docker/0123\n0::/",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            4,
        ),
        (
            8,
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            8,
        ),
        # Little memory.
        (8, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": str(512 * MEBIBYTE)}, 2),
        (8, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": str(128 * MEBIBYTE)}, 1),
        (8, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "max"}, 8),
        (
            8,
            {
                "proc/self/cgroup": "7:memory:/docker/0123",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": str(1024 * MEBIBYTE),
            },
            4,
        ),
        # Unreadable files limit nothing.
        (3, {"proc/self/cgroup": "no such line\n0::/../../x", "sys/fs/cgroup/cpu.max": "\u00b2 x"}, 3),
    ],
)
def test_the_number_of_processes(affinity: int, files: dict[str, str], expected: int, tmp_path: Path) -> None:
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    assert count_processes(affinity=affinity, root=tmp_path) == expected


def test_settings_in_the_environment_take_precedence() -> None:
    by_default = read_settings({})
    assert (by_default.relay_processes, by_default.workers) == (usable_processes(), usable_processes())
    given = read_settings({"RELAY_PROCESSES": "3", "WORKERS": "16"})
    assert (given.relay_processes, given.workers) == (3, 16)
    blank = read_settings({"RELAY_PROCESSES": "", "WORKERS": " "})
    assert (blank.relay_processes, blank.workers) == (usable_processes(), usable_processes())
    for name in ("RELAY_PROCESSES", "WORKERS"):
        for value in ("0", "17"):
            with pytest.raises(SettingsError, match=f"{name} is {value}: expected a number from 1 to 16"):
                read_settings({name: value})
