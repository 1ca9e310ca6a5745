"""Knows whether this program runs from a checkout, where rooms are top-level packages, or is installed, where they are
in the package session_relay (see deploy/wheel_hook.py)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

PREFIX = __name__.removesuffix("models.process.program")
"""What the names of all modules begin with: nothing, or `session_relay.`."""
IS_INSTALLED = PREFIX != ""
PROJECT = Path(__file__).resolve().parent.parent.parent
"""The folder of the rooms and of alembic.ini."""


def module_name(module: str) -> str:
    """Return the full name of a module that is named by its room, such as `worker.dashboard`."""
    return f"{PREFIX}{module}"


def python_command(module: str) -> tuple[str, str, str]:
    """Return the command that runs a module of ours with this Python."""
    return sys.executable, "-m", module_name(module)


def own_data_dir(environment: Mapping[str, str]) -> Path:
    """Return the data folder that belongs to this program, without symbolic links: `.data` of the checkout, or,
    installed, the user's. An account without a home, as in some containers, has that of the system."""
    if not IS_INSTALLED:
        return (PROJECT / ".data").resolve()
    folder = environment.get("XDG_DATA_HOME", "")
    try:
        home = Path(folder) if os.path.isabs(folder) else Path("~/.local/share").expanduser()
    except RuntimeError:
        home = Path("/var/lib")
    return (home / "session-relay").resolve()
