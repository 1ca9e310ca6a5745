"""Real servers for the tests: one Postgres and one Valkey for each worker of a run, with a database built by the real
migrations."""

from __future__ import annotations

import functools
import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import httpx2
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis.internal.conjecture import providers
from redis import Redis
from sqlalchemy import Connection, Engine

from local.servers.embedded import EmbeddedServer
from models.settings import Settings, read_settings
from sessions.embeddings.configured import configured_encoder
from sessions.postgres.connections import create_engine
from tests.support.processes.stack import Stack, new_stack
from tests.support.project import API_KEY, IS_LONG
from tests.support.servers import run_folder, running_postgres, running_valkey

# Collecting all tests makes many objects, and hardly any garbage.
gc.disable()

# Every client would read the certificate authorities anew, which takes 20 ms, also where it never uses TLS.
for transports in map(vars, (httpx._transports.default, httpx2._transports.default)):
    transports["create_ssl_context"] = functools.cache(transports["create_ssl_context"])

# Tests started in the background of a script ignore Ctrl-C, and their children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Values are generated without looking for constants in all modules, which takes seconds of each worker.
vars(providers)["_get_local_constants"] = lambda: providers._local_constants

# Generated values are the same in each run, so that a failure comes from the change; long runs look for new ones, and
# for more. On a busy machine any example may take longer than a deadline.
hypothesis_settings.register_profile(
    "everyday", derandomize=not IS_LONG, deadline=None, max_examples=100 if IS_LONG else 50
)
hypothesis_settings.load_profile("everyday")

ROOMS = ("torture", "acceptance", "integration", "conformance", "unit")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the folders whose files take long, so that no worker waits for another in the end. Within a folder the
    order stays random."""
    items.sort(key=lambda item: next((place for place, room in enumerate(ROOMS) if room in item.path.parts), 0))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """In a run of one kind of tests, skip the files without any: importing all files takes seconds."""
    wanted = next((kind for kind in ("serial", "torture") if config.option.markexpr.startswith(kind)), "")
    is_test = collection_path.name.startswith("test_")
    return True if wanted and is_test and f"mark.{wanted}" not in collection_path.read_text() else None


def pytest_collection_finish() -> None:
    """Exclude what was imported and collected from garbage collection, which else goes through it again and again."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_configure() -> None:
    """Create the run's folder before there are workers, so that all use the same."""
    run_folder()


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedServer]:
    """The Postgres of this worker, migrated."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedServer]:
    """The Valkey of this worker, for tests without a stack."""
    with running_valkey() as server:
        yield server


@pytest.fixture(scope="session")
def database_url(postgres: EmbeddedServer) -> str:
    """The worker's database."""
    return postgres.url


@pytest.fixture(scope="session")
def redis_url(valkey: EmbeddedServer) -> str:
    """The worker's Redis."""
    return valkey.url


@pytest.fixture
def own_redis_url() -> Iterator[str]:
    """A Redis of the test's own, whose settings it may change."""
    with running_valkey() as server:
        yield server.url


@pytest.fixture
def own_redis(own_redis_url: str) -> Iterator[Redis]:
    """A client of the test's own Redis."""
    with Redis.from_url(own_redis_url) as client:
        yield client


@pytest.fixture(scope="session")
def settings(database_url: str, redis_url: str) -> Settings:
    """Settings of a process that uses the worker's servers."""
    return read_settings({"DATABASE_URL": database_url, "REDIS_URL": redis_url, "API_KEY": API_KEY})


@pytest.fixture(scope="session")
def engine(settings: Settings) -> Iterator[Engine]:
    """Connections to the worker's database."""
    engine = create_engine(settings, application_name="tests", pool_size=5)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A connection whose changes are rolled back after the test."""
    with engine.connect() as connection:
        transaction = connection.begin()
        yield connection
        transaction.rollback()


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """A client of the worker's Redis, which is emptied before the test."""
    client = Redis.from_url(redis_url)
    client.flushdb()
    yield client
    client.close()


@pytest.fixture(scope="session")
def loaded_model() -> None:
    """The model of embeddings, loaded in this process: on a busy machine a search would not wait for it."""
    encoder = configured_encoder(read_settings({}))
    assert encoder is not None
    encoder.texts(["."])


@pytest.fixture(scope="session")
def shared_stacks() -> list[Stack]:
    """The stacks that several modules use, which are emptied before each module."""
    return []


@pytest.fixture(scope="module", autouse=True)
def _empty_stacks(shared_stacks: list[Stack]) -> None:
    for stack in shared_stacks:
        stack.empty()


@pytest.fixture(scope="session")
def direct_stack(
    postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory, shared_stacks: list[Stack]
) -> Iterator[Stack]:
    """The processes without a pooler."""
    with new_stack(postgres, tmp_path_factory.mktemp("stack"), workers=2) as stack:
        shared_stacks.append(stack)
        yield stack
        shared_stacks.remove(stack)


@pytest.fixture(scope="session")
def stack(direct_stack: Stack) -> Stack:
    """The worker's processes, for tests that kill nothing and change no settings. Modules may choose others."""
    return direct_stack


@pytest.fixture(scope="session")
def stack_engine(direct_stack: Stack) -> Iterator[Engine]:
    """Connections to the stack's database."""
    engine = create_engine(read_settings(direct_stack.environment), application_name="tests", pool_size=2)
    yield engine
    engine.dispose()
