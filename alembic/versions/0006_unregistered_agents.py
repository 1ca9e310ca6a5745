"""Agents that only claim are told apart from those that somebody registered; what batches have read is forgotten."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("agents", sa.Column("is_registered", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    # A claim makes agents of this form. Of those that are of it, it is not known who made them known.
    op.execute(
        "UPDATE agents SET is_registered = true WHERE last_seen_at IS NULL OR type <> 'general' OR max_concurrent <> 1"
        " OR command IS NOT NULL OR capabilities <> '{}'"
    )
    # By how the names of commands begin that read.
    op.execute(
        "UPDATE deliveries SET response = NULL WHERE command = 'batch' AND status = 'applied' AND response::text"
        """ ~ '"command":"(get|list|query|resume_bundle|retrieve|search)'"""
    )


def downgrade() -> None:
    op.drop_column("agents", "is_registered")
