"""The stores, empty for each test: one in Postgres, in a database of its own, and one in files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from local.servers.embedded import EmbeddedServer
from models.settings import read_settings
from sessions.backend import Backend
from sessions.files.backend import FilesBackend
from sessions.postgres.backend import PostgresBackend
from tests.support.servers import new_database
from tests.support.stores.sending import send


@pytest.fixture(scope="session")
def store_url(postgres: EmbeddedServer) -> Iterator[str]:
    """A migrated database of its own."""
    with new_database(postgres) as url:
        yield url


@pytest.fixture(scope="session")
def postgres_store(store_url: str) -> Iterator[PostgresBackend]:
    """The store in Postgres, shared by all tests: a new one would connect and compile each statement again."""
    backend = PostgresBackend(read_settings({"DATABASE_URL": store_url, "EMBEDDINGS": "off"}))
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def store_cursor(store_url: str) -> Iterator[psycopg2.extensions.cursor]:
    """A cursor in that database, outside of transactions: a new connection costs more than emptying the tables."""
    with closing(psycopg2.connect(store_url)) as connection:
        connection.autocommit = True
        yield connection.cursor()


@pytest.fixture
def in_postgres(store_cursor: psycopg2.extensions.cursor, postgres_store: PostgresBackend) -> PostgresBackend:
    """The store in Postgres, empty."""
    store_cursor.execute("DELETE FROM sessions; DELETE FROM deliveries")  # Far faster than TRUNCATE.
    return postgres_store


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """The folder of the files."""
    return tmp_path / "data"


@pytest.fixture
def in_files(data_dir: Path) -> FilesBackend:
    """The store in files, empty."""
    return FilesBackend(read_settings({"DATA_DIR": str(data_dir), "EMBEDDINGS": "off"}))


@pytest.fixture(params=["in_postgres", "in_files"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each store in turn."""
    store: Backend = request.getfixturevalue(request.param)
    return store


@pytest.fixture
def walk(backend: Backend) -> Backend:
    """Each store in turn, with an active session."""
    send(backend, "create_session", title="Morning walk")
    return backend
