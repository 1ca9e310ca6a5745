"""Runs the local stack with settings of a measurement, on data of its own, and deletes it afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from local.stack.environment import free_port

KEY = "key-of-the-measuring"
ROOT = Path(__file__).parent.parent
NO_LIMITS = {"RATE_LIMIT": "1000000000/minute", "BYTE_LIMIT": "1000000000000/minute"}


class OwnStack(NamedTuple):
    """A stack that was started, perhaps not ready yet. Its key is KEY."""

    port: int
    folder: Path
    """Its data."""


@contextmanager
def own_stack(**settings: str) -> Iterator[OwnStack]:
    """Run a stack within the block."""
    port = free_port("127.0.0.1", 0, variable="PORT")
    with tempfile.TemporaryDirectory(prefix="session-relay-bench-") as folder:
        Path(folder).chmod(0o755)  # Postgres runs as another user when this runs as root.
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "PYTHONPATH": str(ROOT),
            "DATA_DIR": folder,
            "PORT": str(port),
            "DASHBOARD_PORT": str(free_port("127.0.0.1", 0, variable="DASHBOARD_PORT")),
            "API_KEY": KEY,
            **NO_LIMITS,
            **settings,
        }
        stack = subprocess.Popen((sys.executable, "-m", "local"), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        try:
            yield OwnStack(port, Path(folder))
        finally:
            stack.terminate()
            stack.wait()
