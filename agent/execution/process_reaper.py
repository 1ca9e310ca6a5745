"""A standalone program, with the standard library only, that runs a command and leaves none of its processes behind.

It ends them all (SIGTERM, then SIGKILL) when the command ends or when the lifeline, a pipe from the runner, closes. On
SIGTERM it kills them at once. So the processes of all tasks end with a killed runner.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from contextlib import suppress

GRACE_SECONDS = 5.0
"""Time between SIGTERM and SIGKILL."""
GIVE_UP_SECONDS = 10.0
"""Time limit after SIGKILL: a process that still exists hangs in the kernel and cannot be ended."""
POLL_SECONDS, LONGEST_POLL_SECONDS = 0.02, 0.2
"""The time between looks for new descendants grows from the first to the second, as each look reads all of /proc. The
end of a child is noticed at once."""
CANNOT_RUN, NOT_FOUND, BY_SIGNAL = 126, 127, 128
"""Exit codes as of shells. BY_SIGNAL is added to the signal's number."""
PR_SET_CHILD_SUBREAPER = 36
IS_LINUX = sys.platform == "linux"


class ProcessReaper:
    """A command and all its descendants."""

    def __init__(self, command: list[str], *, lifeline: int) -> None:
        """Start the command. Raises OSError if it cannot be started."""
        self._lifeline = lifeline
        self._wakeup, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._kill_now = False
        signal.signal(signal.SIGTERM, self._request_kill)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        if IS_LINUX:
            # Orphaned descendants become children of this process, whatever their session or process group.
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._code: int | None = None
        self._pid = os.posix_spawnp(
            command[0],
            command,
            os.environ,
            setpgroup=0,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT],
        )

    def run(self) -> int:
        """Wait until the command ends or must be ended. Returns its exit code when no process is left."""
        while not self._kill_now:
            ready, _, _ = select.select([self._lifeline, self._wakeup], [], [])
            self._forget_wakeups(ready)
            self._reap()
            if self._code is not None or self._lifeline in ready:
                break
        self._terminate()
        return BY_SIGNAL + signal.SIGKILL if self._code is None else self._code

    def _request_kill(self, *_: object) -> None:
        self._kill_now = True

    def _terminate(self) -> None:
        began_at = time.monotonic()
        signalled: set[int] = set()
        while self._has_processes() and (age := time.monotonic() - began_at) < GRACE_SECONDS + GIVE_UP_SECONDS:
            must_kill = self._kill_now or age > GRACE_SECONDS
            for pid in descendants(os.getpid()) if IS_LINUX else [-self._pid]:
                if must_kill or pid not in signalled:
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL if must_kill else signal.SIGTERM)
                    signalled.add(pid)
            ready, _, _ = select.select([self._wakeup], [], [], min(max(POLL_SECONDS, age / 10), LONGEST_POLL_SECONDS))
            self._forget_wakeups(ready)

    def _forget_wakeups(self, ready: list[int]) -> None:
        if self._wakeup in ready:
            os.read(self._wakeup, 4096)

    def _has_processes(self) -> bool:
        has_children = self._reap()
        if IS_LINUX or has_children:
            return has_children  # On Linux every descendant is a child, or below a child.
        try:
            os.killpg(self._pid, 0)
        except OSError:  # macOS raises this also for a group with only a zombie left.
            return False
        return True

    def _reap(self) -> bool:
        """Reap ended children. Returns whether others remain."""
        try:
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = found
                if pid == self._pid:
                    code = os.waitstatus_to_exitcode(status)
                    self._code = code if code >= 0 else BY_SIGNAL - code
        except ChildProcessError:
            return False
        return True


def descendants(root: int) -> list[int]:
    """List the live descendants of a process, parents first. One that has just lost its parent may be missing. Linux
    only."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            # The second field is a name in parentheses, which may contain any characters.
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state not in (b"Z", b"X"):
                    children.setdefault(int(parent), []).append(int(name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def main() -> int:
    """Run the command of the arguments, after the lifeline's file descriptor."""
    lifeline, command = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(lifeline, False)
    try:
        reaper = ProcessReaper(command, lifeline=lifeline)
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}.", file=sys.stderr)
        return NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
    return reaper.run()


if __name__ == "__main__":
    sys.exit(main())
