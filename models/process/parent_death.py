"""Stops a child process when its parent ends for any reason: the child's stdin is a pipe that closes with the parent.

The parent starts the child with `parent_pipe_environment` and a pipe; the child calls `exit_with_parent` first, or
watches the pipe with ParentWatch.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Mapping

VARIABLE = "SESSION_RELAY_LIFELINE"
STDIN = 0


def parent_pipe_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a child whose stdin is a pipe that its parent keeps open."""
    return {**environment, VARIABLE: "1"}


def exit_with_parent() -> None:
    """If the parent requested it, watch stdin and send SIGTERM to this process when it closes. Call once."""
    if os.environ.pop(VARIABLE, "") == "1":
        threading.Thread(target=_stop_at_end_of_input, name="lifeline", daemon=True).start()


class ParentWatch:
    """Detects the end of the parent without a thread, for processes that fork. Create it instead of calling
    `exit_with_parent`."""

    def __init__(self) -> None:
        self._is_requested = os.environ.pop(VARIABLE, "") == "1"

    def has_ended(self) -> bool:
        """Return whether the parent requested to be watched, and has ended. Does not wait."""
        while self._is_requested and select.select([STDIN], [], [], 0)[0]:
            if not os.read(STDIN, 1024):
                return True
        return False


def _stop_at_end_of_input() -> None:
    while os.read(STDIN, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
