"""The migrations: up, down and up again, and no drift from the tables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from local.servers.embedded import EmbeddedServer
from models.settings import sqlalchemy_url
from sessions.postgres.commands.missing_passages import MissingPassages
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


def test_the_migration_of_due_dates_can_be_repeated_after_a_kill(empty_database: str, alembic: Config) -> None:
    command.upgrade(alembic, "0013")
    engine = create_engine(sqlalchemy_url(empty_database))
    with engine.begin() as connection:
        connection.exec_driver_sql(DATED)
        connection.exec_driver_sql('ALTER TABLE memories ADD COLUMN due text COLLATE "C"')
        connection.exec_driver_sql("CREATE INDEX ix_memories_due ON memories (due) WHERE due IS NOT NULL")
    command.upgrade(alembic, "0014")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM memories WHERE due IS NOT NULL").scalar_one() == 2
    engine.dispose()


SPOKEN = """
INSERT INTO sessions (session_id, title, participants, context, status, created_by, created_at, last_activity_at)
VALUES ('walk', 'Morning walk', '{Ana}', '', 'active', 'k', '2026-06-01Z', '2026-06-01Z');
INSERT INTO conversation_chunks (session_id, chunk_id, content, format, participants, extracted_items, metadata,
    created_by, created_at)
SELECT 'walk', 'c' || n, 'We talked about solar panels ' || n, 'dialogue', '{}', '{}', '{}', 'k', '2026-06-02Z'
FROM generate_series(1, 1200) n;
INSERT INTO memories (session_id, key, revision, type, content, tags, status, created_by, created_at, updated_at,
    search_text)
VALUES ('walk', 'roof', 1, 'decision', '{"what": "panels"}', '{}', 'open', 'k', '2026-06-02Z', '2026-06-02Z', 'panels'),
    ('walk', 'half', 1, 'idea', '"\\ud83d panels"', '{}', 'open', 'k', '2026-06-02Z', '2026-06-02Z', '');
INSERT INTO artifacts (session_id, artifact_id, name, type, content, metadata, created_by, created_at, search_text)
VALUES ('walk', 'plan', 'Plan', 'document', '"panels"', '{}', 'k', '2026-06-02Z', '');
INSERT INTO tasks (session_id, task_id, description, task_type, priority, input_data, depends_on, max_attempts, attempt,
    status, questions, description_hash, created_by, created_at, updated_at)
VALUES ('walk', 't1', 'Compare panels', 'general', 0, '{}', '{}', 3, 0, 'pending', '[]', '', 'k', '2026-06-02Z',
    '2026-06-02Z');
"""
WRITTEN_BY_THE_PREVIOUS_VERSION = """
INSERT INTO memories (session_id, key, revision, type, content, tags, status, created_by, created_at, updated_at,
    search_text)
VALUES ('walk', 'late', 1, 'idea', '"panels"', '{}', 'open', 'k', '2026-06-03Z', '2026-06-03Z', 'panels'),
    ('walk', 'roof', 2, 'decision', '"no solar roof"', '{}', 'open', 'k', '2026-06-02Z', '2026-06-03Z', 'solar roof')
ON CONFLICT (session_id, key) DO UPDATE SET revision = excluded.revision, content = excluded.content,
    updated_at = excluded.updated_at, search_text = excluded.search_text
"""


def test_stored_texts_are_split_after_the_migration_while_the_previous_version_still_writes(
    empty_database: str, alembic: Config
) -> None:
    command.upgrade(alembic, "0013")
    engine = create_engine(sqlalchemy_url(empty_database))

    def run(statement: str) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)

    def passages() -> dict[tuple[str, str], str]:
        with engine.connect() as connection:
            rows = connection.exec_driver_sql("SELECT area, item_id, text FROM passages WHERE number = 0 ORDER BY area")
            return {(row.area, row.item_id): row.text for row in rows}

    def split() -> int:
        missing = MissingPassages(engine)
        while not missing.is_done:
            missing.write(seconds=0.01)
        return missing.written

    run(SPOKEN)
    command.upgrade(alembic, "head")
    assert passages() == {}
    with engine.begin() as busy:
        busy.exec_driver_sql("SELECT FROM memories WHERE key = 'half' FOR UPDATE")
        some = MissingPassages(engine)
        some.write(seconds=2)
        assert ("memories", "half") not in passages()
    assert split() + some.written == 1_205
    found = passages()
    assert len(found) == 1_205
    assert found["memories", "roof"] == "what: panels"
    assert found["sessions", "walk"] == "Morning walk"
    assert found["tasks", "t1"] == "Compare panels"
    run(WRITTEN_BY_THE_PREVIOUS_VERSION)
    assert split() == 2
    assert passages() == found | {("memories", "late"): "panels", ("memories", "roof"): "no solar roof"}
    assert split() == 0
    with engine.connect() as connection:
        left = connection.exec_driver_sql("SELECT search_text, search FROM memories WHERE key = 'roof'").one()
        assert tuple(left) == ("", None), "No words of the replaced text are left."
    command.downgrade(alembic, "0013")
    engine.dispose()
