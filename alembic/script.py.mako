"""${message}

Keep it reversible, and hold locks only briefly: add columns without rewriting the table, create indexes on big tables
concurrently in a separate migration, and drop nothing that the previous release still reads. Alter at most four tables:
each lock may take 0.2 s, while writers wait for those that are held already. If a lock takes longer, env.py rolls back
and runs the whole migration again; what is committed in between (autocommit_block) must bear that.
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
