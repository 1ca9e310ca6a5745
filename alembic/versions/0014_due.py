"""Adds the date or time at which a memory is due, also for stored memories whose content has one in its field `due`."""

import sqlalchemy as sa
from alembic import op
from msgspec import Raw

from models.due import due_in

revision = "0014"
down_revision = "0013"

TABLES = {"memories": ("session_id", "key"), "memory_revisions": ("session_id", "key", "revision")}
"""Each table with its primary key."""


def upgrade() -> None:
    for table, keys in TABLES.items():
        op.add_column(table, sa.Column("due", sa.Text(collation="C"), nullable=True))
        _fill(table, keys)
    op.create_index("ix_memories_due", "memories", ["due"], postgresql_where=sa.text("due IS NOT NULL"))


def downgrade() -> None:
    op.drop_index("ix_memories_due", table_name="memories", postgresql_where=sa.text("due IS NOT NULL"))
    for table in TABLES:
        op.drop_column(table, "due")


def _fill(table: str, keys: tuple[str, ...]) -> None:
    """Read the contents in Python, as the stores do: Postgres would fail at the first that it cannot decode."""
    names = [sa.column(name) for name in keys]
    content = sa.cast(sa.column("content"), sa.Text).label("content")
    rows = op.get_bind().execute(
        sa.select(*names, content).select_from(sa.table(table)).where(content.contains('"due"'))
    )
    found = [
        {**{f"the_{name}": row._mapping[name] for name in keys}, "due": due}
        for row in rows
        if (due := due_in(Raw(row.content.encode())))
    ]
    if found:
        places = " AND ".join(f"{name} = :the_{name}" for name in keys)
        op.get_bind().execute(sa.text(f"UPDATE {table} SET due = :due WHERE {places}"), found)  # noqa: S608 - our names
