"""The store in Postgres, used directly: locks, and the errors when it cannot be used."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2
import pytest
from sqlalchemy import text

from local.servers.embedded import EmbeddedServer
from models.errors import SettingsError, Unavailable
from models.queue.inbox import shard_of
from models.settings import Settings, read_settings
from models.tables import SCHEMA_REVISION
from sessions.postgres.backend import PostgresBackend
from sessions.postgres.commands.locks import SHARD_LOCK
from sessions.postgres.connections import create_engine
from sessions.postgres.operations.health import check_health
from sessions.postgres.operations.schema_revision import read_revision
from tests.support.ports import free_port
from tests.support.servers import execute, new_database
from tests.support.stores.sending import SESSION, send


@contextmanager
def held_shard(url: str) -> Iterator[None]:
    """Hold the lock of the session's shard within the block."""
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", (SHARD_LOCK, shard_of(SESSION)))
        yield
    connection.close()


def test_a_command_waits_for_the_lock_of_its_shard(in_postgres: PostgresBackend, store_url: str) -> None:
    send(in_postgres, "create_session", title="x")
    answers = []
    with held_shard(store_url):
        sending = threading.Thread(target=lambda: answers.append(send(in_postgres, "store_memory", content=1)))
        sending.start()
        sending.join(0.3)
        assert sending.is_alive()
        assert send(in_postgres, "get_session_summary")["stats"]["memories"] == 0
    sending.join(10)
    assert answers[0]["created"] is True


def test_waiting_for_the_lock_times_out_with_an_error(in_postgres: PostgresBackend, store_url: str) -> None:
    send(in_postgres, "create_session", title="x")
    began = time.monotonic()
    with held_shard(store_url), pytest.raises(Unavailable, match="Another process is changing"):
        send(in_postgres, "store_memory", content=1)
    assert time.monotonic() - began < 9
    assert send(in_postgres, "get_session_summary")["stats"]["memories"] == 0


@pytest.mark.parametrize(
    ("revision", "told"),
    [(None, "does not have the tables"), ("0001", "has schema 0001"), ("9999", "Update this program")],
)
def test_another_schema_is_refused_before_any_change(postgres: EmbeddedServer, revision: str | None, told: str) -> None:
    with new_database(postgres, template="template1") as url:
        if revision:
            execute(url, "CREATE TABLE alembic_version (version_num text)")
            execute(url, f"INSERT INTO alembic_version VALUES ('{revision}')")
        backend = PostgresBackend(read_settings({"DATABASE_URL": url}))
        with pytest.raises(Unavailable, match=told) as refused:
            send(backend, "create_session", title="x")
        assert refused.value.code == "schema_differs"
        if revision != "9999":
            assert "session-cli db upgrade" in refused.value.message
        backend.close()


def test_an_unreachable_server_is_reported(store_url: str) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        PostgresBackend(read_settings({}))
    backend = PostgresBackend(read_settings({"DATABASE_URL": f"postgresql://x@127.0.0.1:{free_port()}/x"}))
    for trying in (
        lambda: backend.send("list_sessions", {}, session_id=None),
        lambda: backend.page("list_sessions", {}, session_id=None),
        lambda: list(backend.session_ids()),
        lambda: list(backend.export(SESSION, format="json")),
    ):
        with pytest.raises(Unavailable, match="is not responding"):
            trying()
    backend.close()


def test_an_export_that_is_read_slowly_holds_no_lock(in_postgres: PostgresBackend, store_url: str) -> None:
    send(in_postgres, "create_session", title="x")
    for number in range(30):
        send(in_postgres, "conversation_chunk", chunk_id=f"c{number}", content="words " * 10_000)
    parts = in_postgres.export(SESSION, format="json")
    beginning = next(parts)
    send(in_postgres, "delete_session", confirm=SESSION)
    document = beginning + b"".join(parts)
    assert document.count(b'"content":"words') == 30
    assert document.endswith(b"]}\n")


def test_a_reader_can_wait_for_journal_events(in_postgres: PostgresBackend) -> None:
    send(in_postgres, "create_session", title="x")
    cursor = in_postgres.events(SESSION, after=None, limit=10, wait_seconds=0).next_cursor
    assert in_postgres.events(SESSION, after=cursor, limit=10, wait_seconds=0.2).items == []
    writing = threading.Timer(0.1, lambda: send(in_postgres, "store_memory", content=1))
    writing.start()
    [event] = in_postgres.events(SESSION, after=cursor, limit=10, wait_seconds=10).items
    assert event["event"] == "store_memory"
    writing.join()


def test_reading_the_revision_without_tables_keeps_the_transaction_usable(store_url: str) -> None:
    engine = create_engine(Settings(database_url=store_url), application_name="tests", pool_size=1)
    with engine.connect() as connection:
        assert read_revision(connection) == SCHEMA_REVISION
        connection.execute(text("SET LOCAL search_path = pg_catalog"))
        assert read_revision(connection) is None
        assert check_health(connection).revision is None
        connection.execute(text("SET LOCAL search_path = public"))
        assert check_health(connection).revision == SCHEMA_REVISION
    engine.dispose()


def test_a_database_user_without_access_is_reported(store_url: str) -> None:
    role = f"stranger_{secrets.token_hex(4)}"
    with closing(psycopg2.connect(store_url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f"CREATE ROLE {role} LOGIN")
        backend = PostgresBackend(Settings(database_url=store_url.replace("//postgres@", f"//{role}@")))
        with pytest.raises(Unavailable, match="use their owner") as refused:
            send(backend, "create_session", title="x")
        assert refused.value.code == "no_access"
        backend.close()
        cursor.execute(f"DROP ROLE {role}")
