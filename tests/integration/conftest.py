"""A relay of its own for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.serving import Serving


@pytest.fixture(scope="module")
def relay(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """`python -m relay`, without Postgres."""
    serving = Serving("relay", tmp_path_factory.mktemp("relay"), REDIS_URL=redis_url)
    yield serving
    serving.close()
