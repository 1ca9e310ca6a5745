"""Parked events, which a session rejected because of its state, kept for a replay."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

PARKED = sa.text("status = 'parked'")
BEFORE = "status IN ('accepted', 'applied', 'rejected', 'failed', 'ignored')"
NOW = "status IN ('accepted', 'applied', 'rejected', 'parked', 'failed', 'ignored')"


def upgrade() -> None:
    op.drop_constraint(op.f("ck_deliveries_status"), "deliveries", type_="check")
    op.create_check_constraint(op.f("ck_deliveries_status"), "deliveries", NOW)
    op.create_index("ix_deliveries_parked", "deliveries", ["source", "session_id"], postgresql_where=PARKED)


def downgrade() -> None:
    op.execute("UPDATE deliveries SET status = 'rejected', entry = NULL WHERE status = 'parked'")
    op.drop_index("ix_deliveries_parked", table_name="deliveries", postgresql_where=PARKED)
    op.drop_constraint(op.f("ck_deliveries_status"), "deliveries", type_="check")
    op.create_check_constraint(op.f("ck_deliveries_status"), "deliveries", BEFORE)
