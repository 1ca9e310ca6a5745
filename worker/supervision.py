"""Keeps child processes alive: starts them, starts again what dies, stops all in order and leaves nobody behind.

It knows nothing of what the children do; telling anybody about a death is left to the caller.
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

from models.process.parent_death import parent_pipe_environment

FIRST_DELAY_SECONDS = 0.1
"""A single crash is hardly noticed."""
LAST_DELAY_SECONDS = 5.0
"""What cannot start burns no processor, and is back soon once it can."""
STEADY_SECONDS = 10.0
"""Who lived that long has started properly: its next death counts as the first."""
KILL_SECONDS = 5.0
"""A killed process ends at once, unless the kernel holds it in input or output."""
POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Child:
    """What to run, as whom, and how to end it. `name` is unique within a supervisor."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path | None = None
    log: Path | None = None
    """Takes standard output and error, appended; without one they go where the parent's go."""
    account: tuple[int, int] | None = None
    """User and group id to run under, without supplementary groups; root only."""
    lifeline: bool = True
    """End it with its parent, however that ends: see models.process.parent_death."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_seconds: float = 10.0


class ChildProcess:
    """One process of a child, in a process group of its own, so that Ctrl-C in a terminal reaches the parent alone."""

    def __init__(self, child: Child) -> None:
        """Start it. Raises OSError when that cannot be done."""
        self.child = child
        user, group = child.account or (None, None)
        with ExitStack() as files:
            log = files.enter_context(child.log.open("ab")) if child.log else None
            self._process = subprocess.Popen(  # noqa: S603
                child.command,
                env=parent_pipe_environment(child.environment) if child.lifeline else dict(child.environment),
                cwd=child.folder,
                stdin=subprocess.PIPE if child.lifeline else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT if log else None,
                process_group=0,
                user=user,
                group=group,
                extra_groups=[] if child.account else None,
            )
        self.pid = self._process.pid
        self._started_at = time.monotonic()
        self._asked_at: float | None = None

    @property
    def age_seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self._started_at

    def ended(self) -> str | None:
        """None while it runs; then in words how it ended. Its process group is gone with it."""
        code = self._process.poll()
        if code is None:
            return None
        self._signal_group(signal.SIGKILL)
        if self._process.stdin:
            self._process.stdin.close()
        return f"ended with exit code {code}" if code >= 0 else f"was ended by {_signal_name(-code)}"

    @property
    def exit_code(self) -> int | None:
        """Once it has ended: its exit code, or minus the number of the signal."""
        return self._process.returncode

    def ask_to_stop(self) -> None:
        """Send its stop signal, once; its time limit runs from here."""
        if self._asked_at is None and self.ended() is None:
            self._asked_at = time.monotonic()
            self._process.send_signal(self.child.stop_signal)

    def stop(self, *, hurry: Callable[[], bool] = lambda: False) -> None:
        """Ask it to stop and wait; kill it at the end of its time limit, or as soon as `hurry` says so."""
        self.ask_to_stop()
        limit_at = (self._asked_at or time.monotonic()) + self.child.stop_timeout_seconds
        while self.ended() is None and time.monotonic() < limit_at and not hurry():
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(POLL_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it and its process group at once, and wait until it is gone."""
        if self.ended() is None:
            self._signal_group(signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(KILL_SECONDS)
            self.ended()

    def _signal_group(self, number: signal.Signals) -> None:
        # macOS answers PermissionError for a group of which only a zombie is left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


@dataclass(frozen=True, kw_only=True)
class UnexpectedExit:
    """A child that ended without having been asked to."""

    child: Child
    reason: str
    failures: int
    """In a row, none of which lived for STEADY_SECONDS."""
    restart_in_seconds: float


@dataclass(kw_only=True)
class _SupervisedChild:
    child: Child
    running: ChildProcess | None = None
    failures: int = 0
    restart_at: float = field(default_factory=time.monotonic)


class Supervisor:
    """Owns children by name. It acts only inside its methods: whoever has it calls `tend` several times a second."""

    def __init__(self, *, on_death: Callable[[UnexpectedExit], None] = lambda death: None) -> None:
        self._kept: dict[str, _SupervisedChild] = {}
        self._on_death = on_death

    def start(self, child: Child) -> None:
        """Start a child and keep it alive from now on."""
        if child.name in self._kept:
            raise ValueError(f"There is a child named {child.name} already.")
        self._kept[child.name] = _SupervisedChild(child=child)
        self.tend()

    def tend(self) -> None:
        """Notice who died, and start again whose delay is over."""
        for kept in self._kept.values():
            if kept.running and (reason := kept.running.ended()):
                steady = kept.running.age_seconds >= STEADY_SECONDS
                self._schedule(kept, reason=reason, failures=1 if steady else kept.failures + 1)
            if kept.running is None and time.monotonic() >= kept.restart_at:
                try:
                    kept.running = ChildProcess(kept.child)
                except OSError as error:
                    self._schedule(kept, reason=f"cannot be started: {error}", failures=kept.failures + 1)

    def pid(self, name: str) -> int | None:
        """The process id of a child, or None while it does not run."""
        running = self._kept[name].running
        return running.pid if running else None

    def failures(self, name: str) -> int:
        """How often in a row a child has ended soon after its start."""
        return self._kept[name].failures

    def stop(self, *, together: bool = False, hurry: Callable[[], bool] = lambda: False) -> None:
        """Stop all, the last started first, one after the other or all `together`; nothing is restarted. Repeatable.

        As soon as `hurry` says so, whoever is left is killed.
        """
        running = [kept.running for kept in reversed(self._kept.values()) if kept.running]
        self._kept.clear()
        if together:
            for process in running:
                process.ask_to_stop()
        for process in running:
            process.stop(hurry=hurry)

    def _schedule(self, kept: _SupervisedChild, *, reason: str, failures: int) -> None:
        delay_seconds = min(FIRST_DELAY_SECONDS * 2 ** min(failures - 1, 16), LAST_DELAY_SECONDS)
        kept.running, kept.failures, kept.restart_at = None, failures, time.monotonic() + delay_seconds
        self._on_death(
            UnexpectedExit(child=kept.child, reason=reason, failures=failures, restart_in_seconds=delay_seconds)
        )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
