"""Indexes what happened by its time, for recent activity over all sessions."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

COMPLETED = sa.text("completed_at IS NOT NULL")
CHANGED = sa.text("updated_at > created_at")
SAID = sa.text("coalesce(start_at, created_at)")


def upgrade() -> None:
    op.create_index("ix_sessions_created_at_session_id", "sessions", ["created_at", "session_id"])
    op.create_index("ix_sessions_completed", "sessions", ["completed_at"], postgresql_where=COMPLETED)
    op.create_index("ix_conversation_chunks_time", "conversation_chunks", [SAID, "session_id"])
    for table in ("memories", "tasks"):
        op.create_index(f"ix_{table}_changed", table, ["created_at", "updated_at"], postgresql_where=CHANGED)
    op.create_index("ix_tasks_updated_at_session_id", "tasks", ["updated_at", "session_id"])
    op.create_index("ix_artifacts_created_at_session_id", "artifacts", ["created_at", "session_id"])


def downgrade() -> None:
    op.drop_index("ix_artifacts_created_at_session_id", table_name="artifacts")
    op.drop_index("ix_tasks_updated_at_session_id", table_name="tasks")
    for table in ("memories", "tasks"):
        op.drop_index(f"ix_{table}_changed", table_name=table, postgresql_where=CHANGED)
    op.drop_index("ix_conversation_chunks_time", table_name="conversation_chunks")
    op.drop_index("ix_sessions_completed", table_name="sessions", postgresql_where=COMPLETED)
    op.drop_index("ix_sessions_created_at_session_id", table_name="sessions")
