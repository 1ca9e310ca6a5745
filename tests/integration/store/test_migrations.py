"""The migrations: up, down and up again, and no drift from the tables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from local.servers.embedded import EmbeddedServer
from models.settings import sqlalchemy_url
from tests.support.project import ROOT
from tests.support.servers import new_database


@pytest.fixture
def empty_database(postgres: EmbeddedServer) -> Iterator[str]:
    """A database without tables."""
    with new_database(postgres, template="template1") as url:
        yield url


@pytest.fixture
def alembic(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Alembic for that database, in this process: starting one for each step would take most of the time."""
    monkeypatch.setenv("DATABASE_URL", empty_database)
    return Config(str(ROOT / "alembic.ini"))


def test_the_schema_can_be_upgraded_and_downgraded_and_matches_the_tables(empty_database: str, alembic: Config) -> None:
    command.upgrade(alembic, "head")
    command.downgrade(alembic, "base")
    engine = create_engine(sqlalchemy_url(empty_database))
    with engine.connect() as connection:
        left = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars()
        assert list(left) == ["alembic_version"]
    engine.dispose()
    command.upgrade(alembic, "head")
    command.check(alembic)  # Raises an error if the tables differ.


def test_the_agents_of_the_predecessor_are_registered(empty_database: str, alembic: Config) -> None:
    command.upgrade(alembic, "head")
    engine = create_engine(sqlalchemy_url(empty_database))
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT name, type, max_concurrent FROM agents ORDER BY name"))
        assert [tuple(row) for row in rows] == [
            ("claude_code", "code", 2),
            ("codex", "code", 3),
            ("gemini_cli", "general", 1),
            ("researcher", "research", 3),
        ]
    engine.dispose()


STORED = """
INSERT INTO sessions (session_id, title, participants, context, status, created_by, created_at, last_activity_at)
VALUES ('walk', 'Walk', '{}', '', 'active', 'k', '2026-06-01Z', '2026-06-01Z');
INSERT INTO conversation_chunks (session_id, chunk_id, content, format, start_at, participants, extracted_items,
    metadata, created_by, created_at)
VALUES ('walk', 'march', 'x', 'dialogue', '2026-03-05Z', '{}', '{}', '{}', 'k', '2026-06-02Z'),
    ('walk', 'june', 'x', 'dialogue', NULL, '{}', '{}', '{}', 'k', '2026-06-03Z');
INSERT INTO memories (session_id, key, revision, type, content, tags, status, chunk_id, created_by, created_at,
    updated_at, search_text)
VALUES ('walk', 'found', 1, 'idea', '1', '{}', 'open', 'march', 'k', '2026-06-02Z', '2026-06-02Z', ''),
    ('walk', 'done', 1, 'idea', '1', '{}', 'done', 'march', 'k', '2026-06-02Z', '2026-06-04Z', ''),
    ('walk', 'later', 1, 'idea', '1', '{}', 'open', 'june', 'k', '2026-06-03Z', '2026-06-03Z', ''),
    ('walk', 'said', 1, 'idea', '1', '{}', 'open', NULL, 'k', '2026-06-02Z', '2026-06-02Z', '');
"""


def test_memories_extracted_from_a_stored_chunk_get_its_time(empty_database: str, alembic: Config) -> None:
    command.upgrade(alembic, "0006")
    engine = create_engine(sqlalchemy_url(empty_database))

    def times() -> dict[str, tuple[str, str]]:
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT key, created_at, updated_at FROM memories"))
            return {row.key: (f"{row.created_at:%m-%d}", f"{row.updated_at:%m-%d}") for row in rows}

    with engine.begin() as connection:
        connection.execute(text(STORED))
    before = times()
    command.upgrade(alembic, "0007")
    assert times() == before | {"found": ("03-05", "03-05"), "done": ("03-05", "06-04")}
    command.downgrade(alembic, "0006")
    assert times() == before
    engine.dispose()


DATED = r"""
INSERT INTO sessions (session_id, title, participants, context, status, created_by, created_at, last_activity_at)
VALUES ('walk', 'Walk', '{}', '', 'active', 'k', '2026-06-01Z', '2026-06-01Z');
INSERT INTO memories (session_id, key, revision, type, content, tags, status, created_by, created_at, updated_at,
    search_text)
SELECT 'walk', key, 2, 'action_item', content, '{}', 'open', 'k', '2026-06-02Z', '2026-06-02Z', ''
FROM (VALUES ('date', '{"what": "Call", "due": "2026-03-14"}'::json), ('time', '{"due":"2026-03-14T12:00+01:00"}'),
    ('vague', '{"due": "Friday"}'), ('none', '{"due": null}'), ('text', '"due"'), ('list', '["due", "2026-03-14"]'),
    ('escaped', '{"due": "2026-03-14", "x": "\ud83d"}')) AS given (key, content);
INSERT INTO memory_revisions (session_id, key, revision, type, content, tags, status, created_by, created_at,
    updated_at)
VALUES ('walk', 'date', 1, 'action_item', '{"due": "2026-03-07"}', '{}', 'open', 'k', '2026-06-02Z', '2026-06-02Z');
"""


def test_stored_memories_are_due_when_their_content_says(empty_database: str, alembic: Config) -> None:
    command.upgrade(alembic, "0013")
    engine = create_engine(sqlalchemy_url(empty_database))
    with engine.begin() as connection:
        connection.exec_driver_sql(DATED)
    for _ in range(2):
        command.upgrade(alembic, "0014")
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT key, due FROM memories WHERE due IS NOT NULL"))
            found = {row.key: row.due for row in rows}
            earlier = connection.execute(text("SELECT due FROM memory_revisions")).scalars()
            assert list(earlier) == ["2026-03-07"]
        assert found == {"date": "2026-03-14", "time": "2026-03-14T11:00:00Z"}
        command.downgrade(alembic, "0013")
    engine.dispose()
