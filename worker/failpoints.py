"""Failpoints: places at which a test can kill a worker. Off unless FAILPOINT_DIR names a folder.

A worker that reaches a failpoint looks for a file of that name in the folder, deletes it, and kills itself with
SIGKILL: each file is one death.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Literal

Failpoint = Literal["after_read", "before_commit", "after_commit", "after_delete"]


def reach(failpoint: Failpoint, failpoint_dir: str) -> None:
    """Die here if a test wants it."""
    if not failpoint_dir:
        return
    try:
        Path(failpoint_dir, failpoint).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
