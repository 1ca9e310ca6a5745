"""A relay and a session for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis
from sqlalchemy import Engine

from tests.support.processes.serving import Serving
from tests.support.processes.stack import new_id
from tests.support.stores.inbox import drain, entry


@pytest.fixture(scope="module")
def relay(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """`python -m relay`, without Postgres."""
    serving = Serving("relay", tmp_path_factory.mktemp("relay"), REDIS_URL=redis_url)
    yield serving
    serving.close()


@pytest.fixture
def walk(redis: Redis, engine: Engine) -> str:
    """An existing session."""
    session_id = new_id("walk")
    drain(redis, engine, entry("create_session", session_id, title="Walk"))
    return session_id
