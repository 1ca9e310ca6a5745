"""Checks of logs that apply to every process in every test."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.project import API_KEY

SECRETS = re.compile(rf"{API_KEY}|sr[khot]_[A-Za-z0-9]{{40}}|whsec_[A-Za-z0-9+/]{{24}}")
"""Keys, tokens and signing secrets."""


def require_no_secret(log: Path) -> None:
    """Fail if a log shows a key, a token or a signing secret."""
    found = SECRETS.search(log.read_text(errors="replace")) if log.exists() else None
    assert found is None, f"{log} shows a secret that begins with {found[0][:8]}"


def require_no_bug(log: Path) -> None:
    """Fail if a process has logged an unexpected error."""
    found = re.search(r"^.*\bBug: .*", log.read_text(errors="replace"), re.MULTILINE) if log.exists() else None
    assert found is None, f"{log}: {found[0]}"
