"""Makes the tables of passages, in which searches look. The sweeper fills them with the stored texts.

The columns in which earlier versions search stay, so that their processes go on working until they are replaced. A later
migration can drop them, with `blank_search`.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from models.field_types import UNSPACED_LETTERS, UNSPACED_SYLLABLES

revision = "0015"
down_revision = "0014"

COLUMNS = {"conversation_chunks": "content", "memories": "search_text", "artifacts": "search_text"}
"""The tables that earlier versions search, and the column that the words are made of."""
BLANK = """
CREATE FUNCTION blank_search() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.search_text := ''; NEW.search := NULL; RETURN NEW; END $$
"""
"""Keeps no words of a text that was replaced."""


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
    op.create_index(op.f("ix_passages_session_id_area_item_id"), "passages", ["session_id", "area", "item_id"])
    op.create_index(
        "ix_passages_words",
        "passages",
        ["words"],
        postgresql_using="gin",
        postgresql_with={"gin_pending_list_limit": 256},
    )
    op.execute(BLANK)
    for table, column in COLUMNS.items():
        op.execute(f"ALTER TABLE {table} ALTER COLUMN search DROP EXPRESSION, ALTER COLUMN search DROP NOT NULL")
        if column == "search_text":
            op.execute(f"ALTER TABLE {table} ALTER COLUMN search_text SET DEFAULT ''")
            op.execute(
                f"CREATE TRIGGER blank_search BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION blank_search()"
            )


def downgrade() -> None:
    """Search finds memories by their content and key then, artifacts by their content and name."""
    op.execute("DROP FUNCTION blank_search CASCADE")
    op.execute("UPDATE memories SET search_text = key || E'\\n' || content::text")
    op.execute("UPDATE artifacts SET search_text = name || E'\\n' || content::text")
    unspaced = f"[{UNSPACED_SYLLABLES}{UNSPACED_LETTERS}]+"
    for table, column in COLUMNS.items():
        spaced = f"regexp_replace(left(coalesce({column}, ''), 200000), '{unspaced}', ' ', 'g')"
        words = f"translate({spaced}, '_~', '||')"
        vector = f"to_tsvector('simple', {words}) || to_tsvector('session_relay', {words})"
        op.execute(f"ALTER TABLE {table} DROP COLUMN search")
        op.execute(f"ALTER TABLE {table} ADD COLUMN search tsvector GENERATED ALWAYS AS ({vector}) STORED NOT NULL")
        op.execute(f"CREATE INDEX ix_{table}_search ON {table} USING gin (search)")
        if column == "search_text":
            op.execute(f"ALTER TABLE {table} ALTER COLUMN search_text DROP DEFAULT")
    op.execute("DROP TABLE IF EXISTS passage_vectors")
    op.drop_table("passages_to_embed")
    op.drop_table("passages")
