"""Failpoints, at which a test can kill a worker. Off unless FAILPOINT_DIR names a folder.

A worker that reaches a failpoint for which the folder has a file deletes the file, and kills itself with SIGKILL.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Literal

Failpoint = Literal["after_read", "before_commit", "after_commit", "after_delete"]


def reach(failpoint: Failpoint, failpoint_dir: str) -> None:
    """Kill this process if the failpoint is set."""
    if not failpoint_dir:
        return
    try:
        Path(failpoint_dir, failpoint).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
