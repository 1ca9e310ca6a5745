"""Runs migrations against DATABASE_URL, each in its own transaction, one migrator at a time.

A migration must not make a running system wait. While it waits for a lock, all later statements on the table queue
behind it; so it waits only briefly, rolls back, pauses, and tries again as a whole.
"""

import random
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from alembic import context
from sqlalchemy import Connection, bindparam, create_engine, event, func, inspect, pool, select, text
from sqlalchemy.exc import OperationalError

from models.settings import read_settings, sqlalchemy_url
from models.tables import METADATA

LOCK_TIMEOUT = "200ms"
"""For each lock of an attempt. A migration that alters four tables may keep a writer waiting four times as long."""
VACUUM_TIMEOUT = "5s"
"""For the locks that only vacuums and changes of the schema wait for. Postgres cancels an autovacuum for whoever has
waited for a second."""
LOCKS_SECONDS = 60.0
"""The time for which each migration tries to get its locks."""
FIRST_PAUSE_SECONDS, PAUSE_FACTOR, LONGEST_PAUSE_SECONDS = 0.5, 1.5, 5.0
"""Pauses between attempts, in which those that have queued are served. Up to half of each is random."""
STATEMENT_TIMEOUT = "300s"
TURN_TIMEOUT = "120s"
"""Longer than the other one may try to get its locks."""
LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED = "55P03", "40P01"
RETIRED = re.compile("search|search_text|ix_[a-z_]+_search")
"""Names of columns and indexes that only processes of the previous version use, until a later migration drops them."""
MIGRATION_LOCK = 7_305_001
"""Advisory lock key, so that two releases that start at the same time migrate one after the other."""
USERS_OF_TABLES = """
SELECT pid, coalesce(nullif(application_name, ''), backend_type) AS name, xact_start
FROM pg_stat_activity JOIN pg_locks USING (pid)
WHERE pid <> pg_backend_pid() AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND granted AND xact_start IS NOT NULL AND relation = ANY (SELECT oid FROM pg_class WHERE relname IN :tables)
ORDER BY xact_start LIMIT 1
"""

Steps = Callable[[Any, Any], Iterable[Any]]
"""Alembic's function that returns the migrations to run."""


def run_migrations() -> None:
    """Connect and migrate."""
    settings = read_settings()
    engine = create_engine(sqlalchemy_url(settings.database_url), poolclass=pool.NullPool)
    with engine.begin() as waiting, engine.connect() as connection:
        _take_turn(waiting)
        event.listen(connection, "begin", _limit_transaction)
        _configure(connection)
        _refuse_newer(connection)
        attempts = Attempts(connection, context.get_context().opts["fn"])
        _configure(connection, fn=attempts.steps)
        attempts.run()
    engine.dispose()


class Attempts:
    """Runs the migrations, and repeats those that do not get their locks."""

    def __init__(self, connection: Connection, find_steps: Steps) -> None:
        self._connection = connection
        self._find_steps = find_steps
        self._seconds = float(_argument("locks_seconds", LOCKS_SECONDS))
        self._waiting: deque[Any] | None = None
        """Migrations that are not committed. They are found once: a target such as `-1` is relative."""

    def run(self) -> None:
        """Run all migrations. Exits if one does not get its locks within LOCKS_SECONDS or
        `alembic -x locks_seconds=…`; those before it are kept."""
        self._begin_migration()
        while True:
            try:
                context.run_migrations()
                return
            except OperationalError as error:
                self._connection.rollback()
                if getattr(error.orig, "pgcode", None) not in (LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED):
                    raise
                if time.monotonic() + self._pause > self._ends_at:
                    raise SystemExit(self._describe_failure()) from error
                print(f"The tables are in use. Trying again in {self._pause:.1f} s.", file=sys.stderr, flush=True)
            time.sleep(self._pause * random.uniform(0.5, 1))  # noqa: S311 - no secret
            self._pause = min(self._pause * PAUSE_FACTOR, LONGEST_PAUSE_SECONDS)

    def steps(self, heads: Any, migration_context: Any) -> Iterator[Any]:
        """Yield each migration that is not committed. Alembic runs one in the transaction that was begun for it, and
        commits it before it asks for the next."""
        if self._waiting is None:
            self._waiting = deque(self._find_steps(heads, migration_context))
        while self._waiting:
            _keep_vacuums_away(self._connection)
            yield self._waiting[0]
            self._waiting.popleft()
            self._begin_migration()

    def _begin_migration(self) -> None:
        self._pause = FIRST_PAUSE_SECONDS
        self._ends_at = time.monotonic() + self._seconds

    def _describe_failure(self) -> str:
        query = text(USERS_OF_TABLES).bindparams(bindparam("tables", expanding=True))
        row = self._connection.execute(query, {"tables": list(METADATA.tables)}).first()
        user = f" Process {row.pid} ({row.name}) uses them since {row.xact_start:%H:%M:%S %Z}." if row else ""
        return (
            f"The tables were in use during all attempts within {self._seconds:g} s; nothing of this migration was"
            f" changed.{user} Run this again when backups and long reads have ended, or end what holds a lock with"
            " pg_terminate_backend(pid)."
        )


def _configure(connection: Connection, **options: Any) -> None:
    context.configure(
        connection=connection,
        target_metadata=METADATA,
        transaction_per_migration=True,
        include_object=lambda _, name, __, reflected, ___: not (reflected and RETIRED.fullmatch(name or "")),
        search_language="english",
        **options,
    )


def _argument(name: str, default: Any) -> Any:
    return context.get_x_argument(as_dictionary=True).get(name, default)


def _keep_vacuums_away(connection: Connection) -> None:
    """Lock all tables in the mode of a vacuum, for which neither readers nor writers wait. A migration that waited for
    the lock that it needs itself would keep both waiting until the vacuum has ended."""
    tables = sorted(set(inspect(connection).get_table_names()) & set(METADATA.tables))
    if tables:
        lock = f"LOCK TABLE {', '.join(tables)} IN SHARE UPDATE EXCLUSIVE MODE"
        connection.exec_driver_sql(
            f"SET LOCAL lock_timeout = '{VACUUM_TIMEOUT}'; {lock}; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"
        )


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
    timeout = _argument("turn_timeout", TURN_TIMEOUT)
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
