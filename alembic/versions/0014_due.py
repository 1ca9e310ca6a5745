"""Adds the date or time at which a memory is due, also for stored memories whose content has one in its field `due`."""

import sqlalchemy as sa
from alembic import op
from msgspec import Raw

from models.due import due_in

revision = "0014"
down_revision = "0013"

KEYS = ("session_id", "key", "revision")
"""Columns that name a content, in the memories and in their revisions."""
TABLES = ("memories", "memory_revisions")
WRITTEN_AT_ONCE = 500


def upgrade() -> None:
    for table in TABLES:
        op.execute(f'ALTER TABLE {table} ADD COLUMN IF NOT EXISTS due text COLLATE "C"')
    # The columns are committed, and what follows locks no table: a kill leaves a part, which is repeated.
    with op.get_context().autocommit_block():
        for table in TABLES:
            _fill(table)
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_memories_due")
        op.execute("CREATE INDEX CONCURRENTLY ix_memories_due ON memories (due) WHERE due IS NOT NULL")


def downgrade() -> None:
    op.drop_index("ix_memories_due", table_name="memories", postgresql_where=sa.text("due IS NOT NULL"))
    for table in TABLES:
        op.drop_column(table, "due")


def _fill(table: str) -> None:
    """Read the contents in Python, as the stores do: Postgres would fail at the first that it cannot decode."""
    names = [sa.column(name) for name in KEYS]
    content = sa.cast(sa.column("content"), sa.Text).label("content")
    rows = op.get_bind().execute(
        sa.select(*names, content).select_from(sa.table(table)).where(content.contains('"due"'))
    )
    found = [
        {**{f"the_{name}": row._mapping[name] for name in KEYS}, "due": due}
        for row in rows
        if (due := due_in(Raw(row.content.encode())))
    ]
    places = " AND ".join(f"{name} = :the_{name}" for name in KEYS)
    for start in range(0, len(found), WRITTEN_AT_ONCE):
        part = found[start : start + WRITTEN_AT_ONCE]
        op.get_bind().execute(sa.text(f"UPDATE {table} SET due = :due WHERE {places}"), part)  # noqa: S608 - our names
