"""Causes of worker failures: logged once, in the words of the library, with advice that works."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text

from api.database import AWAY_SECONDS
from local.servers.embedded import EmbeddedServer
from models.process.supervision import Child
from models.settings import read_settings
from models.tables import SCHEMA_REVISION
from sessions.postgres.connections import create_engine, diagnose
from tests.support.ports import free_port
from tests.support.processes.fork_server import ForkedRoom
from tests.support.processes.stack import Stack, new_id, wait_for
from tests.support.project import ROOT

READ_SECONDS = 0.05
"""The pause of a client that reads again and again."""
REDIS = {"REDIS_URL": "redis://127.0.0.1:1/0"}


def start_worker(log: Path, **environment: str) -> ForkedRoom:
    """Start a worker without an embedder, which would load its model."""
    return ForkedRoom(
        Child(
            name="worker",
            command=(sys.executable, "-m", "worker"),
            environment={"PATH": os.environ["PATH"], "EMBEDDINGS": "off", **environment},
            folder=ROOT,
            log=log,
            stop_timeout_seconds=20,
        )
    )


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        (REDIS, "DATABASE_URL is not set: expected postgresql://user:password@host:port/database."),
        ({**REDIS, "DATABASE_URL": "mysql://x"}, "DATABASE_URL is not valid: expected postgresql://"),
        (
            {**REDIS, "DATABASE_URL": "postgresql://u:p#ss@h:port/d"},
            "/ ? # @ : in the password written as %2F %3F %23 %40 %3A",
        ),
        ({**REDIS, "DATABASE_URL": "postgresql://u@h/d?schema=x"}, "Postgres does not know its parameter schema."),
        ({"DATABASE_URL": "postgresql://u@h/d"}, "REDIS_URL is not set: expected redis://:password@host:port/0."),
        ({"DATABASE_URL": "postgresql://u@h/d", "REDIS_URL": "127.0.0.1"}, "REDIS_URL is not valid: expected redis://"),
    ],
)
def test_invalid_settings_end_a_worker_at_once(tmp_path: Path, environment: dict[str, str], told: str) -> None:
    log = tmp_path / "worker.log"
    worker = start_worker(log, **environment)
    wait_for(worker.ended, seconds=60, what="ended")
    assert worker.exit_code == 2
    [line] = log.read_text().splitlines()
    assert line.startswith("session-relay: ")
    assert told in line
    assert "ss@h" not in line


@pytest.mark.parametrize(
    ("trouble", "cause", "advice"),
    [
        ("away", "Connection refused", "Start Postgres, or correct the host and port in DATABASE_URL."),
        ("database", 'database "none" does not exist', "Create the database, or correct its name in DATABASE_URL."),
        ("role", 'role "nobody-there" does not exist', "Create the role, or correct the user in DATABASE_URL."),
        ("empty", "The database does not have the tables of this program", "Run `alembic upgrade head`."),
        ("newer", "The database has schema 9999", "Update this program: a newer version has migrated the database."),
    ],
)
def test_a_worker_without_a_usable_database_logs_the_cause_once(
    own_database_url: str, own_redis_url: str, tmp_path: Path, trouble: str, cause: str, advice: str
) -> None:
    name = urlsplit(own_database_url).path
    urls = {
        "away": f"postgresql://postgres@127.0.0.1:{free_port()}/postgres",
        "database": own_database_url.replace(f"{name}?", "/none?"),
        "role": own_database_url.replace("//postgres@", "//nobody-there@"),
    }
    engine = create_engine(read_settings({"DATABASE_URL": own_database_url}), application_name="tests", pool_size=1)
    if trouble in ("empty", "newer"):
        with engine.begin() as connection:
            change = "UPDATE alembic_version SET version_num = '9999'"
            connection.execute(text("DROP TABLE alembic_version" if trouble == "empty" else change))
    log = tmp_path / "worker.log"
    worker = start_worker(log, DATABASE_URL=urls.get(trouble, own_database_url), REDIS_URL=own_redis_url)
    try:
        wait_for(lambda: advice in log.read_text(), what="reported")
        if trouble == "newer":
            with engine.begin() as connection:
                connection.execute(text("UPDATE alembic_version SET version_num = :now"), {"now": SCHEMA_REVISION})
            wait_for(lambda: "are running." in log.read_text(), what="workers running")
    finally:
        worker.stop()
        engine.dispose()
    lines = [line for line in log.read_text().splitlines() if cause in line]
    assert len(lines) == 1
    assert "ERROR" in lines[0]
    assert advice in lines[0]
    assert "Traceback" not in log.read_text()


def test_each_process_logs_once_that_postgres_is_down(own_stack: Stack, own_postgres: EmbeddedServer) -> None:
    stack = own_stack
    sessions = [new_id("away") for _ in range(20)]
    for session_id in sessions:
        stack.send("create_session", session_id, title="Away")
    own_postgres.pause()
    tried_until = time.monotonic() + 2 * AWAY_SECONDS + 0.5
    while time.monotonic() < tried_until:
        assert stack.client.get("/v1/sessions").status_code == 503
        time.sleep(READ_SECONDS)
    assert stack.log("api").count("Reads are rejected. Postgres cannot be used: ") == 1
    for number in range(3):
        for session_id in sessions:
            stack.post("store_memory", session_id, content=f"note {number}")
    logged = wait_for(lambda: stack.log("worker").count("Postgres cannot be used") >= 2, what="logged")
    assert logged
    own_postgres.restart()
    stack.wait_until_drained()
    wait_for(lambda: stack.client.get("/v1/sessions").status_code == 200, what="Postgres back")
    assert "Postgres is available again." in stack.log("api")
    lines = [line for line in stack.log("worker").splitlines() if "Postgres cannot be used" in line]
    causes = {line.partition("Postgres cannot be used: ")[2] for line in lines}
    assert len(lines) <= 3 * len(causes)
    assert all("Start Postgres" in cause or "Wait until the server" in cause for cause in causes)


def test_a_diagnosis_contains_no_value_of_the_statement(own_database_url: str) -> None:
    engine = create_engine(read_settings({"DATABASE_URL": own_database_url}), application_name="tests", pool_size=1)
    with engine.connect() as connection:
        try:
            connection.execute(text("SELECT CAST('a secret' AS integer)"))
        except Exception as error:
            assert "secret" in str(error)
            assert "secret" not in diagnose(error)
        else:
            pytest.fail("The statement did not fail.")
    engine.dispose()
