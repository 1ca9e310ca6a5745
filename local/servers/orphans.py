"""Stops processes that a killed stack left running.

Each process of a stack has a mark in its environment, which its children inherit. It identifies the process from its
start, and a reused process id is never mistaken for it.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil

MARK = "SESSION_RELAY_LOCAL"
SERVERS = {"postgres": signal.SIGINT, "valkey-server": signal.SIGTERM}
"""The signal for a fast, clean shutdown of each server, by process name; other processes receive SIGTERM."""
STOP_SECONDS = 10.0
KILL_SECONDS = 5.0
POLL_SECONDS = 0.02


def mark(data_dir: Path, role: str) -> dict[str, str]:
    """Return the environment variables that mark a process of that role in the stack of that data folder."""
    return {MARK: f"{role}:{data_dir}"}


def end_orphans(data_dir: Path, role: str, *, home: Path | None = None) -> list[str]:
    """Stop every process of that role, killing it after STOP_SECONDS. Returns their names and pids. Safe to repeat.

    With `home`, also stops servers that work in that folder: children of Postgres overwrite their mark.
    """
    found = [process for process in psutil.process_iter() if _belongs(process, data_dir, role, home)]
    names = [f"{_name(process)} (pid {process.pid})" for process in found]
    for process in found:
        with suppress(psutil.Error):
            if _has_mark(process, data_dir, role):
                process.send_signal(SERVERS.get(process.name(), signal.SIGTERM))
    for process in _wait_for(found, limit_seconds=STOP_SECONDS):
        with suppress(psutil.Error):
            process.kill()
    _wait_for(found, limit_seconds=KILL_SECONDS)
    return names


def _wait_for(processes: list[psutil.Process], *, limit_seconds: float) -> list[psutil.Process]:
    """Wait for processes to exit. Returns those still running after the limit. Zombies count as exited."""
    limit_at = time.monotonic() + limit_seconds
    while (alive := [process for process in processes if _alive(process)]) and time.monotonic() < limit_at:
        time.sleep(POLL_SECONDS)
    return alive


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _belongs(process: psutil.Process, data_dir: Path, role: str, home: Path | None) -> bool:
    if process.pid == os.getpid():
        return False
    if _has_mark(process, data_dir, role):
        return True
    try:
        return home is not None and process.name() in SERVERS and Path(process.cwd()).is_relative_to(home)
    except (psutil.Error, OSError):
        return False


def _has_mark(process: psutil.Process, data_dir: Path, role: str) -> bool:
    try:
        return process.environ().get(MARK) == f"{role}:{data_dir}"
    except (psutil.Error, OSError):
        return False


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "a process"
