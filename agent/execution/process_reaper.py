"""A program of its own, from the standard library alone: runs a command, and leaves none of its processes behind.

It ends them all (SIGTERM, then SIGKILL) when the command ends, when the lifeline closes, which is a pipe from the one
who started it, and at once on SIGTERM. So a runner that is killed takes the processes of its tasks with it.
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
"""Between SIGTERM and SIGKILL."""
GIVE_UP_SECONDS = 10.0
"""What does not die of SIGKILL by then hangs in the kernel; nobody can end it."""
POLL_SECONDS = 0.02
CANNOT_RUN, NOT_FOUND, BY_SIGNAL = 126, 127, 128
"""Exit codes as shells give them; BY_SIGNAL is added to the signal's number."""
PR_SET_CHILD_SUBREAPER = 36
IS_LINUX = sys.platform == "linux"


class ProcessReaper:
    """One command and all that it has started."""

    def __init__(self, command: list[str], *, lifeline: int) -> None:
        """Start it. Raises OSError when that cannot be done."""
        self._lifeline = lifeline
        self._wakeup, enqueuer = os.pipe()
        os.set_blocking(enqueuer, False)
        signal.set_wakeup_fd(enqueuer, warn_on_full_buffer=False)
        self._is_in_hurry = False
        signal.signal(signal.SIGTERM, self._hurry)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        if IS_LINUX:
            # Processes whose parent has ended become children of this one, wherever they have moved.
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
        """Wait until it ends or has to; gives its exit code when nothing of it is left."""
        while not self._is_in_hurry:
            ready, _, _ = select.select([self._lifeline, self._wakeup], [], [])
            if self._wakeup in ready:
                os.read(self._wakeup, 4096)
            self._reap()
            if self._code is not None or self._lifeline in ready:
                break
        self._end()
        return BY_SIGNAL + signal.SIGKILL if self._code is None else self._code

    def _hurry(self, *_: object) -> None:
        self._is_in_hurry = True

    def _end(self) -> None:
        began_at = time.monotonic()
        told: set[int] = set()
        while self._is_anything_left() and (age := time.monotonic() - began_at) < GRACE_SECONDS + GIVE_UP_SECONDS:
            is_over = self._is_in_hurry or age > GRACE_SECONDS
            for pid in descendants(os.getpid()) if IS_LINUX else [-self._pid]:
                if is_over or pid not in told:
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL if is_over else signal.SIGTERM)
                    told.add(pid)
            time.sleep(POLL_SECONDS)

    def _is_anything_left(self) -> bool:
        has_children = self._reap()
        if IS_LINUX or has_children:
            return has_children  # Linux: whatever descends from this process is below one of its children, or is one.
        try:
            os.killpg(self._pid, 0)
        except OSError:  # macOS answers so, too, for a group of which only a zombie is left.
            return False
        return True

    def _reap(self) -> bool:
        """Note which children have ended; whether there are others."""
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
    """The processes below one, parents first, as far as they live; one that has just lost its parent may be missing.
    Linux only."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            # Its second field is a name in parentheses, which may hold anything.
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state not in (b"Z", b"X"):
                    children.setdefault(int(parent), []).append(int(name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def main() -> int:
    """Run the command that follows the number of the lifeline."""
    lifeline, command = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(lifeline, False)
    try:
        keeper = ProcessReaper(command, lifeline=lifeline)
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}.", file=sys.stderr)
        return NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
    return keeper.run()


if __name__ == "__main__":
    sys.exit(main())
