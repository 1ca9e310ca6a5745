"""A running stack for acceptance tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.stack import Stack


@pytest.fixture(scope="session")
def stack(database_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The processes on the run's servers, for tests that kill nothing."""
    stack = Stack(database_url=database_url, redis_url=redis_url, folder=tmp_path_factory.mktemp("stack"))
    stack.start()
    yield stack
    stack.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a stack of the test's own."""
    return tmp_path / "stack"
