"""Orders transcripts by `start_time`, and gives extracted items the time of their chunk."""

from alembic import op

revision = "0007"
down_revision = "0006"

INDEX = "ix_conversation_chunks_said"


def upgrade() -> None:
    op.execute(f"CREATE INDEX {INDEX} ON conversation_chunks (session_id, (coalesce(start_at, created_at)), position)")
    _set_times(to="start_at", of="created_at")


def downgrade() -> None:
    _set_times(to="created_at", of="start_at")
    op.drop_index(INDEX, table_name="conversation_chunks")


def _set_times(*, to: str, of: str) -> None:
    """Set the times of extracted items; `updated_at` too for those unchanged since."""
    for table in ("memories", "memory_revisions"):
        op.execute(
            f"UPDATE {table} AS m SET created_at = c.{to},"  # noqa: S608 - constant names
            f" updated_at = CASE WHEN m.updated_at = c.{of} THEN c.{to} ELSE m.updated_at END"
            " FROM conversation_chunks AS c WHERE c.session_id = m.session_id AND c.chunk_id = m.chunk_id"
            f" AND c.start_at IS NOT NULL AND m.created_at = c.{of}"
        )
