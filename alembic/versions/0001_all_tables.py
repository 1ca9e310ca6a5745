"""Creates all tables, the text search configuration, and the default agents."""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    language = context.get_context().opts["search_language"]
    op.execute(f"CREATE TEXT SEARCH CONFIGURATION session_relay (COPY = pg_catalog.{language})")
    op.create_table(
        "agents",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("command", sa.Text(), nullable=True),
        sa.Column("max_concurrent", sa.Integer(), nullable=False),
        sa.Column("capabilities", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_agents")),
    )
    op.create_table(
        "deliveries",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("http_status", sa.SmallInteger(), nullable=False),
        sa.Column("response", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("entry", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.Column("conflicts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_conflict_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('accepted', 'applied', 'rejected', 'failed', 'ignored')", name=op.f("ck_deliveries_status")
        ),
        sa.PrimaryKeyConstraint("source", "delivery_id", name=op.f("pk_deliveries")),
    )
    op.create_index(op.f("ix_deliveries_decided_at"), "deliveries", ["decided_at"], unique=False)
    op.create_index(
        "ix_deliveries_failed", "deliveries", ["position"], unique=False, postgresql_where=sa.text("status = 'failed'")
    )
    op.create_index(op.f("ix_deliveries_position"), "deliveries", ["position"], unique=False)
    op.create_index(op.f("ix_deliveries_session_id_position"), "deliveries", ["session_id", "position"], unique=False)
    op.create_table(
        "sessions",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("participants", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("context", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_activity_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('active', 'paused', 'completed')", name=op.f("ck_sessions_status")),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_sessions")),
    )
    op.create_index(
        op.f("ix_sessions_last_activity_at_session_id"), "sessions", ["last_activity_at", "session_id"], unique=False
    )
    op.create_table(
        "conversation_chunks",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("chunk_id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("start_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("participants", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("extracted_items", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("metadata", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "search",
            postgresql.TSVECTOR(),
            sa.Computed(
                "to_tsvector('simple', regexp_replace(left(coalesce(content, ''), 200000), '[\\u1100-\\u11ff\\u2e80-\\u2fdf\\u3005-\\u3007\\u3040-\\u30ff\\u3130-\\u318f\\u31f0-\\u31ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\ua960-\\ua97f\\uac00-\\ud7ff\\uf900-\\ufaff\\uff66-\\uff9f\\U00020000-\\U0003ffff\\u0e00-\\u0fff\\u1000-\\u109f\\u1780-\\u17ff\\ua9e0-\\ua9ff\\uaa60-\\uaa7f]+', ' ', 'g')) || to_tsvector('session_relay', regexp_replace(left(coalesce(content, ''), 200000), '[\\u1100-\\u11ff\\u2e80-\\u2fdf\\u3005-\\u3007\\u3040-\\u30ff\\u3130-\\u318f\\u31f0-\\u31ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\ua960-\\ua97f\\uac00-\\ud7ff\\uf900-\\ufaff\\uff66-\\uff9f\\U00020000-\\U0003ffff\\u0e00-\\u0fff\\u1000-\\u109f\\u1780-\\u17ff\\ua9e0-\\ua9ff\\uaa60-\\uaa7f]+', ' ', 'g'))",
                persisted=True,
            ),
            nullable=False,
        ),
        sa.CheckConstraint(
            "format IN ('dialogue', 'summary', 'transcript')", name=op.f("ck_conversation_chunks_format")
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.session_id"], name=op.f("fk_conversation_chunks_sessions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session_id", "chunk_id", name=op.f("pk_conversation_chunks")),
    )
    op.create_index(op.f("ix_conversation_chunks_position"), "conversation_chunks", ["position"], unique=False)
    op.create_index(
        "ix_conversation_chunks_search", "conversation_chunks", ["search"], unique=False, postgresql_using="gin"
    )
    op.create_index(
        op.f("ix_conversation_chunks_session_id_position"),
        "conversation_chunks",
        ["session_id", "position"],
        unique=False,
    )
    op.create_table(
        "events",
        sa.Column("event_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("delivery_id", sa.Text(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.session_id"], name=op.f("fk_events_sessions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_session_id_event_id"), "events", ["session_id", "event_id"], unique=False)
    op.create_table(
        "memories",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("content", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("tags", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("chunk_id", sa.Text(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("search_text", sa.Text(), nullable=False),
        sa.Column(
            "search",
            postgresql.TSVECTOR(),
            sa.Computed(
                "to_tsvector('simple', regexp_replace(left(coalesce(search_text, ''), 200000), '[\\u1100-\\u11ff\\u2e80-\\u2fdf\\u3005-\\u3007\\u3040-\\u30ff\\u3130-\\u318f\\u31f0-\\u31ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\ua960-\\ua97f\\uac00-\\ud7ff\\uf900-\\ufaff\\uff66-\\uff9f\\U00020000-\\U0003ffff\\u0e00-\\u0fff\\u1000-\\u109f\\u1780-\\u17ff\\ua9e0-\\ua9ff\\uaa60-\\uaa7f]+', ' ', 'g')) || to_tsvector('session_relay', regexp_replace(left(coalesce(search_text, ''), 200000), '[\\u1100-\\u11ff\\u2e80-\\u2fdf\\u3005-\\u3007\\u3040-\\u30ff\\u3130-\\u318f\\u31f0-\\u31ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\ua960-\\ua97f\\uac00-\\ud7ff\\uf900-\\ufaff\\uff66-\\uff9f\\U00020000-\\U0003ffff\\u0e00-\\u0fff\\u1000-\\u109f\\u1780-\\u17ff\\ua9e0-\\ua9ff\\uaa60-\\uaa7f]+', ' ', 'g'))",
                persisted=True,
            ),
            nullable=False,
        ),
        sa.CheckConstraint("status IN ('open', 'done', 'superseded')", name=op.f("ck_memories_status")),
        sa.CheckConstraint(
            "type IN ('idea', 'decision', 'question', 'action_item', 'context', 'preference', 'fact', 'risk', 'note', 'general')",
            name=op.f("ck_memories_type"),
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.session_id"], name=op.f("fk_memories_sessions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session_id", "key", name=op.f("pk_memories")),
    )
    op.create_index("ix_memories_search", "memories", ["search"], unique=False, postgresql_using="gin")
    op.create_index(
        op.f("ix_memories_session_id_updated_at_key"), "memories", ["session_id", "updated_at", "key"], unique=False
    )
    op.create_index("ix_memories_tags", "memories", ["tags"], unique=False, postgresql_using="gin")
    op.create_index(op.f("ix_memories_updated_at"), "memories", ["updated_at"], unique=False)
    op.create_table(
        "tasks",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("agent_name", sa.Text(), nullable=True),
        sa.Column("task_type", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("description_hash", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("input_data", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("depends_on", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("output", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("progress", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("questions", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("cancel_reason", sa.Text(), nullable=True),
        sa.Column("claimed_by", sa.Text(), nullable=True),
        sa.Column("claim_token", sa.Text(), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("shown_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status IN ('claimed', 'running')) = (lease_expires_at IS NOT NULL)", name=op.f("ck_tasks_lease")
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'claimed', 'running', 'input_required', 'completed', 'failed', 'cancelled')",
            name=op.f("ck_tasks_status"),
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.session_id"], name=op.f("fk_tasks_sessions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session_id", "task_id", name=op.f("pk_tasks")),
    )
    op.create_index(
        "ix_tasks_claimable",
        "tasks",
        [sa.literal_column("priority DESC"), "position"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_tasks_finished",
        "tasks",
        ["finished_at", "position"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "ix_tasks_leases",
        "tasks",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text("lease_expires_at IS NOT NULL"),
    )
    op.create_index(
        "ix_tasks_news",
        "tasks",
        ["session_id"],
        unique=False,
        postgresql_where=sa.text("shown_at IS NULL OR shown_at < updated_at"),
    )
    op.create_index(op.f("ix_tasks_session_id_position"), "tasks", ["session_id", "position"], unique=False)
    op.create_index(
        "ix_tasks_unfinished",
        "tasks",
        [sa.literal_column("priority DESC"), "position"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_index("uq_tasks_claim_token", "tasks", ["claim_token"], unique=True)
    op.create_table(
        "artifacts",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("artifact_id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=True),
        sa.Column("content", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("metadata", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("search_text", sa.Text(), nullable=False),
        sa.Column(
            "search",
            postgresql.TSVECTOR(),
            sa.Computed(
                "to_tsvector('simple', regexp_replace(left(coalesce(search_text, ''), 200000), '[\\u1100-\\u11ff\\u2e80-\\u2fdf\\u3005-\\u3007\\u3040-\\u30ff\\u3130-\\u318f\\u31f0-\\u31ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\ua960-\\ua97f\\uac00-\\ud7ff\\uf900-\\ufaff\\uff66-\\uff9f\\U00020000-\\U0003ffff\\u0e00-\\u0fff\\u1000-\\u109f\\u1780-\\u17ff\\ua9e0-\\ua9ff\\uaa60-\\uaa7f]+', ' ', 'g')) || to_tsvector('session_relay', regexp_replace(left(coalesce(search_text, ''), 200000), '[\\u1100-\\u11ff\\u2e80-\\u2fdf\\u3005-\\u3007\\u3040-\\u30ff\\u3130-\\u318f\\u31f0-\\u31ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\ua960-\\ua97f\\uac00-\\ud7ff\\uf900-\\ufaff\\uff66-\\uff9f\\U00020000-\\U0003ffff\\u0e00-\\u0fff\\u1000-\\u109f\\u1780-\\u17ff\\ua9e0-\\ua9ff\\uaa60-\\uaa7f]+', ' ', 'g'))",
                persisted=True,
            ),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["session_id", "task_id"], ["tasks.session_id", "tasks.task_id"], name=op.f("fk_artifacts_tasks")
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.session_id"], name=op.f("fk_artifacts_sessions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session_id", "artifact_id", name=op.f("pk_artifacts")),
    )
    op.create_index(op.f("ix_artifacts_position"), "artifacts", ["position"], unique=False)
    op.create_index("ix_artifacts_search", "artifacts", ["search"], unique=False, postgresql_using="gin")
    op.create_index(op.f("ix_artifacts_session_id_position"), "artifacts", ["session_id", "position"], unique=False)
    op.create_table(
        "memory_revisions",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("content", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("tags", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("chunk_id", sa.Text(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id", "key"],
            ["memories.session_id", "memories.key"],
            name=op.f("fk_memory_revisions_memories"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "key", "revision", name=op.f("pk_memory_revisions")),
    )
    op.execute(
        """
        INSERT INTO agents (name, type, max_concurrent, capabilities, registered_at) VALUES
            ('claude_code', 'code', 2, '{python,javascript,refactoring}', now()),
            ('researcher', 'research', 3, '{web_search,competitive_analysis}', now()),
            ('gemini_cli', 'general', 1, '{}', now()),
            ('codex', 'code', 3, '{}', now())
        """
    )


def downgrade() -> None:
    op.drop_table("memory_revisions")
    op.drop_index(op.f("ix_artifacts_session_id_position"), table_name="artifacts")
    op.drop_index("ix_artifacts_search", table_name="artifacts", postgresql_using="gin")
    op.drop_index(op.f("ix_artifacts_position"), table_name="artifacts")
    op.drop_table("artifacts")
    op.drop_index("uq_tasks_claim_token", table_name="tasks")
    op.drop_index("ix_tasks_unfinished", table_name="tasks", postgresql_where=sa.text("finished_at IS NULL"))
    op.drop_index(op.f("ix_tasks_session_id_position"), table_name="tasks")
    op.drop_index(
        "ix_tasks_news", table_name="tasks", postgresql_where=sa.text("shown_at IS NULL OR shown_at < updated_at")
    )
    op.drop_index("ix_tasks_leases", table_name="tasks", postgresql_where=sa.text("lease_expires_at IS NOT NULL"))
    op.drop_index("ix_tasks_finished", table_name="tasks", postgresql_where=sa.text("finished_at IS NOT NULL"))
    op.drop_index("ix_tasks_claimable", table_name="tasks", postgresql_where=sa.text("status = 'pending'"))
    op.drop_table("tasks")
    op.drop_index(op.f("ix_memories_updated_at"), table_name="memories")
    op.drop_index("ix_memories_tags", table_name="memories", postgresql_using="gin")
    op.drop_index(op.f("ix_memories_session_id_updated_at_key"), table_name="memories")
    op.drop_index("ix_memories_search", table_name="memories", postgresql_using="gin")
    op.drop_table("memories")
    op.drop_index(op.f("ix_events_session_id_event_id"), table_name="events")
    op.drop_table("events")
    op.drop_index(op.f("ix_conversation_chunks_session_id_position"), table_name="conversation_chunks")
    op.drop_index("ix_conversation_chunks_search", table_name="conversation_chunks", postgresql_using="gin")
    op.drop_index(op.f("ix_conversation_chunks_position"), table_name="conversation_chunks")
    op.drop_table("conversation_chunks")
    op.drop_index(op.f("ix_sessions_last_activity_at_session_id"), table_name="sessions")
    op.drop_table("sessions")
    op.drop_index(op.f("ix_deliveries_session_id_position"), table_name="deliveries")
    op.drop_index(op.f("ix_deliveries_position"), table_name="deliveries")
    op.drop_index("ix_deliveries_failed", table_name="deliveries", postgresql_where=sa.text("status = 'failed'"))
    op.drop_index(op.f("ix_deliveries_decided_at"), table_name="deliveries")
    op.drop_table("deliveries")
    op.drop_table("agents")
    op.execute("DROP TEXT SEARCH CONFIGURATION session_relay")
