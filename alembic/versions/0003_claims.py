"""Claims on tasks, and indexes to find an agent's next task."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

PENDING = sa.text("status = 'pending'")
UNNAMED = sa.text("status = 'pending' AND agent_name IS NULL")
HELD = sa.text("lease_expires_at IS NOT NULL")
BEST_FIRST = [sa.literal_column("priority DESC"), "position"]


def upgrade() -> None:
    op.add_column("tasks", sa.Column("claim_source", sa.Text(), nullable=True))
    op.add_column("tasks", sa.Column("worker", sa.Text(), nullable=True))
    op.add_column("tasks", sa.Column("lease_seconds", sa.Integer(), nullable=True))
    op.drop_index("ix_tasks_claimable", table_name="tasks")
    op.create_index("ix_tasks_claimable", "tasks", ["agent_name", *BEST_FIRST], postgresql_where=PENDING)
    op.create_index("ix_tasks_claimable_types", "tasks", ["task_type", *BEST_FIRST], postgresql_where=UNNAMED)
    op.create_index("ix_tasks_held", "tasks", ["claimed_by"], postgresql_where=HELD)
    op.create_index("ix_tasks_holders", "tasks", ["claim_source", "session_id"], postgresql_where=HELD)


def downgrade() -> None:
    op.drop_index("ix_tasks_holders", table_name="tasks", postgresql_where=HELD)
    op.drop_index("ix_tasks_held", table_name="tasks", postgresql_where=HELD)
    op.drop_index("ix_tasks_claimable_types", table_name="tasks", postgresql_where=UNNAMED)
    op.drop_index("ix_tasks_claimable", table_name="tasks", postgresql_where=PENDING)
    op.create_index("ix_tasks_claimable", "tasks", BEST_FIRST, postgresql_where=PENDING)
    op.drop_column("tasks", "lease_seconds")
    op.drop_column("tasks", "worker")
    op.drop_column("tasks", "claim_source")
