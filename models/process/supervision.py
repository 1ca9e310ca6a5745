"""Supervises child processes: starts them, restarts those that die, and stops all in order, leaving none behind.

It knows nothing of their work, and leaves reporting to the caller.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from models.process.forking import ForkedProcess
from models.process.parent_death import parent_pipe_environment

FIRST_DELAY_SECONDS = 0.1
"""Short, so that a single crash hardly matters."""
LAST_DELAY_SECONDS = 5.0
"""Long enough that a child that cannot start costs no CPU, short enough that it is soon back when it can."""
STEADY_SECONDS = 10.0
"""A child that lived that long has started properly: its next death counts as the first."""
KILL_SECONDS = 5.0
"""A killed process ends at once, unless it is blocked in the kernel."""
POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Child:
    """A command to run, its account, and how to stop it. `name` is unique within a supervisor."""

    name: str
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    work: Callable[[], object] | None = None
    """Done in a copy of this process, instead of a command; see models.process.forking. Such a child has this process'
    environment, folder, log and account, and its lifeline."""
    folder: Path | None = None
    log: Path | None = None
    """Appended with stdout and stderr; without it they go to the parent's."""
    account: tuple[int, int] | None = None
    """User and group id to run as, without supplementary groups; root only."""
    inherited: tuple[int, ...] = ()
    """File descriptors that it inherits, with the same numbers."""
    lifeline: bool = True
    """Whether it ends with its parent, however that ends: see models.process.parent_death."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_seconds: float = 10.0


class ChildProcess:
    """A running child, in its own process group, so that Ctrl-C in a terminal reaches the parent only."""

    def __init__(self, child: Child) -> None:
        """Start it. Raises OSError if that fails."""
        self.child = child
        self._process = (
            ForkedProcess(child.work, name=child.name, inherited=child.inherited) if child.work else self._launch(child)
        )
        self.pid = self._process.pid
        self._started_at = time.monotonic()
        self._asked_at: float | None = None

    @staticmethod
    def _launch(child: Child) -> subprocess.Popen[bytes]:
        user, group = child.account or (None, None)
        with ExitStack() as files:
            log = files.enter_context(child.log.open("ab")) if child.log else None
            return subprocess.Popen(  # noqa: S603
                child.command,
                env=parent_pipe_environment(child.environment) if child.lifeline else dict(child.environment),
                cwd=child.folder,
                stdin=subprocess.PIPE if child.lifeline else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT if log else None,
                process_group=0,
                pass_fds=child.inherited,
                user=user,
                group=group,
                extra_groups=[] if child.account else None,
            )

    @property
    def age_seconds(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self._started_at

    def ended(self) -> str | None:
        """Returns None while it runs, then a description of how it ended. Kills the rest of its process group."""
        code = self._process.poll()
        if code is None:
            return None
        self._signal_group(signal.SIGKILL)
        if self._process.stdin:
            self._process.stdin.close()
        return f"ended with exit code {code}" if code >= 0 else f"was ended by {_signal_name(-code)}"

    @property
    def exit_code(self) -> int | None:
        """Its exit code, or minus the number of the signal, once it has ended."""
        return self._process.returncode

    def ask_to_stop(self) -> None:
        """Send its stop signal once, and start its timeout."""
        if self._asked_at is None and self.ended() is None:
            self._asked_at = time.monotonic()
            self._process.send_signal(self.child.stop_signal)

    def stop(self, *, hurry: Callable[[], bool] = lambda: False) -> None:
        """Ask it to stop and wait; kill it after its timeout, or as soon as `hurry` returns true."""
        self.ask_to_stop()
        limit_at = (self._asked_at or time.monotonic()) + self.child.stop_timeout_seconds
        while self.ended() is None and time.monotonic() < limit_at and not hurry():
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(POLL_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill it and its process group, and wait until it is gone."""
        if self.ended() is None:
            self._signal_group(signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(KILL_SECONDS)
            self.ended()

    def _signal_group(self, number: signal.Signals) -> None:
        # macOS raises PermissionError for a group of which only a zombie is left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


@dataclass(frozen=True, kw_only=True)
class UnexpectedExit:
    """A child that ended without being asked to."""

    child: Child
    reason: str
    exit_code: int | None
    """Its exit code, minus the number of the signal, or None if it could not be started."""
    failures: int
    """Consecutive ones, none of which lived for STEADY_SECONDS."""
    restart_in_seconds: float


@dataclass(kw_only=True)
class _SupervisedChild:
    child: Child
    running: ChildProcess | None = None
    failures: int = 0
    restart_at: float = field(default_factory=time.monotonic)


class Supervisor:
    """Supervises children by name. It acts only inside its methods: its owner calls `tend` several times a second."""

    def __init__(self, *, on_death: Callable[[UnexpectedExit], None] = lambda death: None) -> None:
        self._children: dict[str, _SupervisedChild] = {}
        self._on_death = on_death

    def start(self, child: Child, *, running: ChildProcess | None = None) -> None:
        """Start a child, unless it is `running` already, and restart it when it dies."""
        if child.name in self._children:
            raise ValueError(f"Duplicate child name {child.name}.")
        self._children[child.name] = _SupervisedChild(child=child, running=running)
        self.tend()

    def tend(self) -> None:
        """Detect dead children, and restart those whose delay is over."""
        for entry in self._children.values():
            if entry.running and (reason := entry.running.ended()):
                steady = entry.running.age_seconds >= STEADY_SECONDS
                self._schedule(entry, reason=reason, failures=1 if steady else entry.failures + 1)
            if entry.running is None and time.monotonic() >= entry.restart_at:
                try:
                    entry.running = ChildProcess(entry.child)
                except OSError as error:
                    self._schedule(entry, reason=f"cannot be started: {error}", failures=entry.failures + 1)

    def pid(self, name: str) -> int | None:
        """Returns a child's process id, or None while it is not running."""
        running = self._children[name].running
        return running.pid if running else None

    def failures(self, name: str) -> int:
        """Returns how often in a row a child has ended soon after its start."""
        return self._children[name].failures

    def stop(self, *, together: bool = False, hurry: Callable[[], bool] = lambda: False) -> None:
        """Stop all children, the last started first, one by one or all `together`; none is restarted. Repeatable.

        As soon as `hurry` returns true, the remaining ones are killed.
        """
        running = [entry.running for entry in reversed(self._children.values()) if entry.running]
        self._children.clear()
        if together:
            for process in running:
                process.ask_to_stop()
        for process in running:
            process.stop(hurry=hurry)

    def _schedule(self, entry: _SupervisedChild, *, reason: str, failures: int) -> None:
        delay_seconds = min(FIRST_DELAY_SECONDS * 2 ** min(failures - 1, 16), LAST_DELAY_SECONDS)
        exit_code = entry.running.exit_code if entry.running else None
        entry.running, entry.failures, entry.restart_at = (
            None,
            failures,
            time.monotonic() + delay_seconds,
        )
        self._on_death(
            UnexpectedExit(
                child=entry.child,
                reason=reason,
                exit_code=exit_code,
                failures=failures,
                restart_in_seconds=delay_seconds,
            )
        )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
