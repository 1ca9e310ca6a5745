"""Moves the words of the search from the records into passages, with those of tasks and sessions."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op
from msgspec import Raw
from sqlalchemy.dialects import postgresql

from models.field_types import UNSPACED_LETTERS, UNSPACED_SYLLABLES
from sessions.postgres.commands.writing import passage_inserts, send
from sessions.search.passages import MOST_LABELS, SUPERSEDED_WEIGHT, Passage, divide, readable

revision = "0015"
down_revision = "0014"

COLUMNS = {"conversation_chunks": "content", "memories": "search_text", "artifacts": "search_text"}
"""The tables that had words, and the column that these were made of."""
ROWS_AT_ONCE = 500
STATEMENTS = {
    "sessions": "SELECT session_id, session_id AS item_id, created_at AS at, NULL AS type, NULL AS name,"
    " participants AS words, NULL AS status, ARRAY[title, context] AS texts, ARRAY[false, false] AS json FROM sessions",
    "conversations": "SELECT session_id, chunk_id AS item_id, coalesce(start_at, created_at) AS at, NULL AS type,"
    " NULL AS name, participants AS words, NULL AS status, ARRAY[content] AS texts, ARRAY[false] AS json"
    " FROM conversation_chunks ORDER BY position",
    "memories": "SELECT session_id, key AS item_id, updated_at AS at, type, NULL AS name, tags AS words, status,"
    " ARRAY[content::text] AS texts, ARRAY[true] AS json FROM memories ORDER BY updated_at",
    "artifacts": "SELECT session_id, artifact_id AS item_id, coalesce(revised_at, created_at) AS at, type, name, '{}'::text[] AS words,"
    " NULL AS status, ARRAY[content::text] AS texts, ARRAY[true] AS json FROM artifacts ORDER BY position",
    "tasks": "SELECT session_id, task_id AS item_id, created_at AS at, task_type AS type, agent_name AS name,"
    " '{}'::text[] AS words, NULL AS status, ARRAY[title, description, questions::text, output::text, error] AS texts,"
    " ARRAY[false, false, true, true, false] AS json FROM tasks ORDER BY position",
}
"""The records of each area, older ones first."""


def upgrade() -> None:
    op.create_table(
        "passages",
        sa.Column("passage_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("area", sa.Text(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("type", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("tags", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("weight", sa.REAL(), nullable=False),
        sa.Column("words", postgresql.TSVECTOR(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.session_id"], name=op.f("fk_passages_sessions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("passage_id", name=op.f("pk_passages")),
    )
    op.create_table(
        "passages_to_embed",
        sa.Column("passage_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("passage_id", name=op.f("pk_passages_to_embed")),
    )
    for passages in _batches(op.get_bind()):
        send(op.get_bind(), passage_inserts(passages))
    op.create_index(op.f("ix_passages_session_id_area_item_id"), "passages", ["session_id", "area", "item_id"])
    op.create_index(
        "ix_passages_words",
        "passages",
        ["words"],
        postgresql_using="gin",
        postgresql_with={"gin_pending_list_limit": 256},
    )
    for table, column in COLUMNS.items():
        op.drop_index(f"ix_{table}_search", table)
        op.drop_column(table, "search")
        if column == "search_text":
            op.drop_column(table, column)
    op.execute("ANALYZE passages")


def downgrade() -> None:
    """Search finds memories by their content and key then, artifacts by their content and name."""
    op.execute("ALTER TABLE memories ADD COLUMN search_text text NOT NULL DEFAULT ''")
    op.execute("UPDATE memories SET search_text = key || E'\\n' || content::text")
    op.execute("ALTER TABLE memories ALTER COLUMN search_text DROP DEFAULT")
    op.execute("ALTER TABLE artifacts ADD COLUMN search_text text NOT NULL DEFAULT ''")
    op.execute("UPDATE artifacts SET search_text = name || E'\\n' || content::text")
    op.execute("ALTER TABLE artifacts ALTER COLUMN search_text DROP DEFAULT")
    unspaced = f"[{UNSPACED_SYLLABLES}{UNSPACED_LETTERS}]+"
    for table, column in COLUMNS.items():
        spaced = f"regexp_replace(left(coalesce({column}, ''), 200000), '{unspaced}', ' ', 'g')"
        words = f"translate({spaced}, '_~', '||')"
        vector = f"to_tsvector('simple', {words}) || to_tsvector('session_relay', {words})"
        op.execute(f"ALTER TABLE {table} ADD COLUMN search tsvector GENERATED ALWAYS AS ({vector}) STORED NOT NULL")
        op.execute(f"CREATE INDEX ix_{table}_search ON {table} USING gin (search)")
    op.execute("DROP TABLE IF EXISTS passage_vectors")
    op.drop_table("passages_to_embed")
    op.drop_table("passages")


def _batches(connection: sa.Connection) -> Iterator[list[Passage]]:
    """Yield the passages of all records."""
    for area, statement in STATEMENTS.items():
        with connection.execute(sa.text(statement), execution_options={"yield_per": ROWS_AT_ONCE}) as rows:
            for part in rows.partitions():
                yield [passage for row in part for passage in _passages(area, row)]


def _passages(area: str, row: Any) -> Iterator[Passage]:
    given = row._mapping
    label = " ".join([given["item_id"], given["name"] or "", *given["words"][:MOST_LABELS]])
    texts = [
        readable(Raw(text.encode())) if is_json else text
        for is_json, text in zip(given["json"], given["texts"], strict=True)
        if text
    ]
    first = Passage(
        area=area,
        session_id=given["session_id"],
        item_id=given["item_id"],
        number=0,
        start=0,
        text="",
        label=label,
        at=given["at"],
        type=given["type"],
        name=given["name"] if area == "artifacts" else None,
        tags=given["words"] if area == "memories" else [],
        weight=SUPERSEDED_WEIGHT if given["status"] == "superseded" else 1.0,
    )
    return divide(first, "\n".join(texts))
