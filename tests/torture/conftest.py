"""A rig for each case."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.torture.rig import Rig, new_rig


@pytest.fixture
def rig(servers_folder: Path) -> Iterator[Rig]:
    """Servers and processes of the test's own."""
    with new_rig(servers_folder) as rig:
        yield rig
