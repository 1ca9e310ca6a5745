"""A child process that must not outlive its parent holds a lifeline: its standard input is a pipe from the parent.

When the parent ends, however it ends, the pipe closes and the child stops itself. What starts children uses
`parent_pipe_environment` and a pipe; what is started calls `exit_with_parent` first.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping

VARIABLE = "SESSION_RELAY_LIFELINE"


def parent_pipe_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child whose standard input is a pipe that its parent keeps open."""
    return {**environment, VARIABLE: "1"}


def exit_with_parent() -> None:
    """Watch standard input if a parent asked for it; at its end this process gets SIGTERM. To be called once."""
    if os.environ.pop(VARIABLE, "") == "1":
        threading.Thread(target=_stop_at_end_of_input, name="lifeline", daemon=True).start()


def _stop_at_end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
