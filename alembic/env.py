"""Runs migrations against DATABASE_URL, each in its own transaction, one migrator at a time.

A migration must give up rather than make a running system wait: it takes its locks within LOCK_TIMEOUT or fails, and
can simply be run again.
"""

from alembic import context
from sqlalchemy import create_engine, pool, text

from models.settings import read_settings, sqlalchemy_url
from models.tables import Base

LOCK_TIMEOUT = "5s"
STATEMENT_TIMEOUT = "300s"
MIGRATION_LOCK = 7_305_001
"""Advisory lock key, so that two releases that start at the same time migrate one after the other."""


def run_migrations() -> None:
    """Connect and migrate."""
    settings = read_settings()
    engine = create_engine(sqlalchemy_url(settings.database_url), poolclass=pool.NullPool)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
        connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'; SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            transaction_per_migration=True,
            search_language=settings.search_language,
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


if context.is_offline_mode():
    raise SystemExit("Migrations need a connection: set DATABASE_URL.")
run_migrations()
