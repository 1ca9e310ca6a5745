"""Keeps earlier revisions of artifacts, and titles of tasks."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

REVISED_AT = sa.text("coalesce(revised_at, created_at)")
CHANGED = sa.text("coalesce(revised_at, created_at) > created_at")


def upgrade() -> None:
    op.add_column("tasks", sa.Column("title", sa.Text, nullable=True))
    op.add_column("artifacts", sa.Column("revision", sa.Integer, server_default=sa.text("1"), nullable=False))
    op.add_column("artifacts", sa.Column("revised_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("artifacts", sa.Column("characters", sa.Integer, nullable=True))
    op.create_index("ix_artifacts_time", "artifacts", [REVISED_AT, "session_id"])
    op.create_index("ix_artifacts_changed", "artifacts", ["created_at", REVISED_AT], postgresql_where=CHANGED)
    op.drop_index("ix_artifacts_created_at_session_id", table_name="artifacts")
    op.create_table(
        "artifact_revisions",
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("artifact_id", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("format", sa.Text, nullable=True),
        sa.Column("content", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("metadata", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("task_id", sa.Text, nullable=True),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revised_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("characters", sa.Integer, nullable=True),
        sa.ForeignKeyConstraint(
            ["session_id", "artifact_id"],
            ["artifacts.session_id", "artifacts.artifact_id"],
            name=op.f("fk_artifact_revisions_artifacts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "artifact_id", "revision", name=op.f("pk_artifact_revisions")),
    )


def downgrade() -> None:
    op.drop_table("artifact_revisions")
    op.create_index("ix_artifacts_created_at_session_id", "artifacts", ["created_at", "session_id"])
    op.drop_index("ix_artifacts_changed", table_name="artifacts", postgresql_where=CHANGED)
    op.drop_index("ix_artifacts_time", table_name="artifacts")
    op.drop_column("artifacts", "characters")
    op.drop_column("artifacts", "revised_at")
    op.drop_column("artifacts", "revision")
    op.drop_column("tasks", "title")
