"""The sources that have seen a task, so that `updates` can repeat it to the others."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

SHOWN = sa.text("shown_at >= updated_at")
UNSEEN_BY_DELEGATOR = sa.text(
    "status IN ('completed', 'failed', 'input_required')"
    " AND (shown_at IS NULL OR shown_at < updated_at OR created_by <> ALL (seen_by))"
)


def upgrade() -> None:
    op.add_column("tasks", sa.Column("seen_by", sa.ARRAY(sa.Text), server_default=sa.text("'{}'"), nullable=False))
    op.create_index("ix_tasks_shown", "tasks", ["session_id", "updated_at"], postgresql_where=SHOWN)
    op.create_index("ix_tasks_delegated", "tasks", ["created_by", "updated_at"], postgresql_where=UNSEEN_BY_DELEGATOR)


def downgrade() -> None:
    op.drop_index("ix_tasks_delegated", table_name="tasks", postgresql_where=UNSEEN_BY_DELEGATOR)
    op.drop_index("ix_tasks_shown", table_name="tasks", postgresql_where=SHOWN)
    op.drop_column("tasks", "seen_by")
