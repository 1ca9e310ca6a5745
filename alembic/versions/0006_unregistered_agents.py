"""Marks agents that claimed without being registered, and deletes the recorded results of batches' reads."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("agents", sa.Column("is_registered", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    # A claim creates agents with these values. Agents registered with the same values cannot be distinguished from them.
    op.execute(
        "UPDATE agents SET is_registered = true WHERE last_seen_at IS NULL OR type <> 'general' OR max_concurrent <> 1"
        " OR command IS NOT NULL OR capabilities <> '{}'"
    )
    # Matches the commands that read by the beginning of their names.
    op.execute(
        "UPDATE deliveries SET response = NULL WHERE command = 'batch' AND status = 'applied' AND response::text"
        """ ~ '"command":"(get|list|query|resume_bundle|retrieve|search)'"""
    )


def downgrade() -> None:
    op.drop_column("agents", "is_registered")
