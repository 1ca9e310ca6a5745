"""Checks a stack's data folder: its free space, and what killed commands have left in it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

LEFT_SECONDS = 86_400
"""The age from which a temporary file is left over; running processes have younger ones."""


def free_share(folder: Path) -> tuple[int, float] | None:
    """Return the free bytes of the folder's disk, and their share of it; None for a missing folder."""
    if not folder.is_dir():
        return None
    usage = shutil.disk_usage(folder)
    return usage.free, usage.free / usage.total


def leftovers(data_dir: Path) -> list[Path]:
    """Find files that killed commands left in a data folder: temporary folders and drafts of the JSON store, and
    incomplete Postgres data."""
    patterns = ("json-store/.passing-*", "json-store/sessions/*.tmp", "postgres/data.new", ".stack.json.*")
    before = time.time() - LEFT_SECONDS
    found = [path for pattern in patterns for path in data_dir.glob(pattern)]
    return sorted(path for path in found if path.lstat().st_mtime < before)
