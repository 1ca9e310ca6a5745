"""Indexes the unfinished tasks of each session, to decide whether it can be completed and which dependent tasks fail."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

OPEN = sa.text("finished_at IS NULL")


def upgrade() -> None:
    op.create_index("ix_tasks_open", "tasks", ["session_id", "position"], postgresql_where=OPEN)


def downgrade() -> None:
    op.drop_index("ix_tasks_open", table_name="tasks", postgresql_where=OPEN)
