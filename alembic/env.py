"""Runs migrations against DATABASE_URL, each in its own transaction, one migrator at a time.

A migration must give up rather than make a running system wait: it takes its locks within LOCK_TIMEOUT or fails, and
can simply be run again.
"""

import re

from alembic import context
from sqlalchemy import Connection, create_engine, event, func, pool, select, text
from sqlalchemy.exc import OperationalError

from models.settings import read_settings, sqlalchemy_url
from models.tables import METADATA

LOCK_TIMEOUT = "5s"
STATEMENT_TIMEOUT = "300s"
TURN_TIMEOUT = "60s"
LOCK_NOT_AVAILABLE = "55P03"
RETIRED = re.compile("search|search_text|ix_[a-z_]+_search")
"""Names of columns and indexes that only processes of the previous version use, until a later migration drops them."""
MIGRATION_LOCK = 7_305_001
"""Advisory lock key, so that two releases that start at the same time migrate one after the other."""


def run_migrations() -> None:
    """Connect and migrate."""
    settings = read_settings()
    engine = create_engine(sqlalchemy_url(settings.database_url), poolclass=pool.NullPool)
    with engine.begin() as waiting, engine.connect() as connection:
        _take_turn(waiting)
        event.listen(connection, "begin", _limit_transaction)
        context.configure(
            connection=connection,
            target_metadata=METADATA,
            transaction_per_migration=True,
            include_object=lambda _, name, __, reflected, ___: not (reflected and RETIRED.fullmatch(name or "")),
            search_language="english",
        )
        _refuse_newer(connection)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


def _refuse_newer(connection: Connection) -> None:
    """Exit if a newer version of this program has migrated the database: this one does not have its migrations."""
    found = context.get_context().get_current_heads()
    known = {script.revision for script in context.script.walk_revisions()}
    if unknown := set(found) - known:
        raise SystemExit(
            f"The database has schema {unknown.pop()}, which this program does not know: its own is {max(known)}. A "
            "newer version has migrated the database. Update this program, or downgrade with the newer version."
        )
    connection.rollback()


def _take_turn(connection: Connection) -> None:
    """Hold the migration lock until this transaction ends. Exits if another migration holds it for longer than
    TURN_TIMEOUT or `alembic -x turn_timeout=…`."""
    timeout = context.get_x_argument(as_dictionary=True).get("turn_timeout", TURN_TIMEOUT)
    # Locks the transaction, not the session: a pooler would pass the session, and its lock, to other clients.
    for name, value in (("lock_timeout", timeout), ("idle_in_transaction_session_timeout", "0")):
        connection.execute(select(func.set_config(name, value, True)))
    try:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
    except OperationalError as error:
        if getattr(error.orig, "pgcode", None) != LOCK_NOT_AVAILABLE:
            raise
        raise SystemExit(
            f"Another migration of this database has been running for {timeout}. Wait until it has ended, then run "
            "this again. If none is running, end the session that holds the lock with pg_terminate_backend(pid): it is "
            f"the one in pg_locks whose locktype is 'advisory' and whose objid is {MIGRATION_LOCK}."
        ) from error


def _limit_transaction(connection: Connection) -> None:
    connection.exec_driver_sql(
        f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'"
    )


if context.is_offline_mode():
    raise SystemExit("Migrations need a connection: set DATABASE_URL.")
run_migrations()
