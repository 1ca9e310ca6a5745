"""Determines the version of the running program, for display and for comparison with a relay's."""

from __future__ import annotations

import re
from pathlib import Path

DISTRIBUTION = "session-relay"
UNKNOWN = "0+checkout"


def version() -> str:
    """Return the version of the checkout that the program runs from, or the installed version, or UNKNOWN."""
    project = Path(__file__).resolve().parent.parent / "pyproject.toml"
    try:
        text = project.read_text(encoding="utf-8")
    except OSError:
        return _installed()
    found = re.search(rf'^name = "{DISTRIBUTION}"\nversion = "([^"]+)"$', text, re.MULTILINE)
    return found[1] if found else _installed()


def _installed() -> str:
    from importlib import metadata

    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return UNKNOWN
