"""Real servers for the tests: one Postgres and one Valkey for a run, the database built by the real migrations."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import Connection, Engine

from local.servers.embedded import EmbeddedServer, start_postgres, start_valkey
from models.settings import Settings, read_settings
from sessions.postgres.connections import create_engine
from tests.support.databases import migrate
from tests.support.project import API_KEY

# Whoever starts the tests in the background of a script has them ignore Ctrl-C, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    """A folder that the servers' own user can enter, too, when the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="session-relay-tests-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(servers_folder: Path) -> Iterator[EmbeddedServer]:
    """The Postgres of the run, empty."""
    server = start_postgres(servers_folder / "shared", settings={"fsync": "off"})
    yield server
    server.stop()


@pytest.fixture(scope="session")
def valkey(servers_folder: Path) -> Iterator[EmbeddedServer]:
    """The Valkey of the run, with the durable settings."""
    server = start_valkey(servers_folder / "shared")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def database_url(postgres: EmbeddedServer) -> str:
    """The run's database, migrated."""
    migrate(postgres.url)
    return postgres.url


@pytest.fixture(scope="session")
def redis_url(valkey: EmbeddedServer) -> str:
    """The run's Redis."""
    return valkey.url


@pytest.fixture(scope="session")
def settings(database_url: str, redis_url: str) -> Settings:
    """Settings of a process that uses the run's servers."""
    return read_settings({"DATABASE_URL": database_url, "REDIS_URL": redis_url, "API_KEY": API_KEY})


@pytest.fixture(scope="session")
def engine(settings: Settings) -> Iterator[Engine]:
    """Connections to the run's database."""
    engine = create_engine(settings, application_name="tests", pool_size=5)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A connection whose changes are undone after the test."""
    with engine.connect() as connection:
        transaction = connection.begin()
        yield connection
        transaction.rollback()


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """A client of the run's Redis, which is emptied before the test."""
    client = Redis.from_url(redis_url)
    client.flushdb()
    yield client
    client.close()
