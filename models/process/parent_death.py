"""Stops a child process when its parent ends for any reason: the child's stdin is a pipe that closes with the parent.

The parent starts the child with `parent_pipe_environment` and a pipe; the child calls `exit_with_parent` first.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping

VARIABLE = "SESSION_RELAY_LIFELINE"


def parent_pipe_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a child whose stdin is a pipe that its parent keeps open."""
    return {**environment, VARIABLE: "1"}


def exit_with_parent() -> None:
    """If the parent requested it, watch stdin and send SIGTERM to this process when it closes. Call once."""
    if os.environ.pop(VARIABLE, "") == "1":
        threading.Thread(target=_stop_at_end_of_input, name="lifeline", daemon=True).start()


def _stop_at_end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
