"""${message}

Keep it reversible, and hold locks only briefly: add columns without rewriting the table, create indexes on big tables
concurrently in a separate migration, and drop nothing that the previous release still reads.
"""

from alembic import op
import sqlalchemy as sa
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
