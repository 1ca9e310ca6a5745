"""The key that an app's token stands for."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("parent_hash", sa.Text(), nullable=True))


def downgrade() -> None:
    # Without its key, nothing would end such a token.
    op.execute("DELETE FROM api_keys WHERE parent_hash IS NOT NULL")
    op.drop_column("api_keys", "parent_hash")
