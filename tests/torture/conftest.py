"""A rig for each case."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.torture.rig import Rig, new_rig


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Servers and processes of the test's own."""
    with new_rig() as rig:
        yield rig
