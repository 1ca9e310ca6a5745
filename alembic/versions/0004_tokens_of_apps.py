"""The API key behind an app's OAuth token."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("parent_hash", sa.Text(), nullable=True))


def downgrade() -> None:
    # A token without its key could never be revoked.
    op.execute("DELETE FROM api_keys WHERE parent_hash IS NOT NULL")
    op.drop_column("api_keys", "parent_hash")
