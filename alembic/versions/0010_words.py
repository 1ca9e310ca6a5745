"""Splits long words of underscores and tildes before Postgres parses them, which took quadratic time."""

from alembic import op

from models.field_types import UNSPACED_LETTERS, UNSPACED_SYLLABLES

revision = "0010"
down_revision = "0009"

COLUMNS = {"conversation_chunks": "content", "memories": "search_text", "artifacts": "search_text"}
"""The searched column of each table."""
UNSPACED = f"[{UNSPACED_SYLLABLES}{UNSPACED_LETTERS}]+"


def upgrade() -> None:
    for table, column in COLUMNS.items():
        _replace(table, f"translate({_spaced(column)}, '_~', '||')")


def downgrade() -> None:
    for table, column in COLUMNS.items():
        _replace(table, _spaced(column))


def _spaced(column: str) -> str:
    return f"regexp_replace(left(coalesce({column}, ''), 200000), '{UNSPACED}', ' ', 'g')"


def _replace(table: str, words: str) -> None:
    """Rewrite the table with the words of each row, then create the index."""
    vector = f"to_tsvector('simple', {words}) || to_tsvector('session_relay', {words})"
    index = f"ix_{table}_search"
    op.execute(f"DROP INDEX {index}")
    op.execute(
        f"ALTER TABLE {table} DROP COLUMN search,"
        f" ADD COLUMN search tsvector GENERATED ALWAYS AS ({vector}) STORED NOT NULL"
    )
    op.execute(f"CREATE INDEX {index} ON {table} USING gin (search)")
