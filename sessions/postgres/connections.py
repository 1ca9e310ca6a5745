"""Connections to Postgres: time limits that the server keeps, and which failures mean that it is away."""

from __future__ import annotations

import psycopg2
from sqlalchemy import Connection, Engine, event
from sqlalchemy import create_engine as create_sqlalchemy_engine
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from models.errors import SettingsError, Unavailable
from models.settings import Settings, sqlalchemy_url

STATEMENT_TIMEOUT_SECONDS = 10
LOCK_TIMEOUT_SECONDS = 5
IDLE_IN_TRANSACTION_TIMEOUT_SECONDS = 10
"""A worker that was stopped in the middle of a transaction must not hold its locks for longer."""
CONNECT_TIMEOUT_SECONDS = 3
TCP_USER_TIMEOUT_SECONDS = 10
KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 2}
"""Seconds, and how often: who waits for the answer of a host that is gone has sent nothing that could time out."""
POOL_TIMEOUT_SECONDS = 5
TRANSACTION_SETTINGS = (
    f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_SECONDS}s';"
    f" SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s';"
    f" SET LOCAL idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_TIMEOUT_SECONDS}s';"
    " SET LOCAL timezone = 'UTC'"
)
"""Set anew in each transaction, in one round trip: a pooler refuses or drops startup options, and what is set for a
session it hands to the next client."""

_PASSING_CLASSES = ("08", "40", "53", "57")
"""SQLSTATE classes: connection, rollback (deadlock), no resources, operator intervention (shutdown, time-out)."""
_PASSING_STATES = ("25P03", "25P04", "55006", "55P03")
"""Idle in transaction, transaction time-out, object in use, lock not available."""
_VALUE_CLASSES = ("22", "54")
"""SQLSTATE classes: data exception, program limit exceeded."""
_STATEMENT_TIMEOUT = "57014"
_DISCREET_CLASSES = ("23", "42", "53", "54", "55", "57", "XX")
"""SQLSTATE classes whose first line names the server's own things. Data exceptions (22) quote the value, and what a
trigger raises (P0) may be anything."""


def create_engine(settings: Settings, *, application_name: str, pool_size: int) -> Engine:
    """An engine with a bounded pool. Connects only when used. Raises SettingsError without DATABASE_URL."""
    if not settings.database_url:
        raise SettingsError("DATABASE_URL is not set: expected postgresql://user:password@host:port/database.")
    engine = create_sqlalchemy_engine(
        sqlalchemy_url(settings.database_url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={
            "application_name": application_name,
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "tcp_user_timeout": TCP_USER_TIMEOUT_SECONDS * 1000,
            **KEEPALIVES,
        },
    )
    event.listen(engine, "begin", _limit_transaction)
    return engine


def _limit_transaction(connection: Connection) -> None:
    connection.exec_driver_sql(TRANSACTION_SETTINGS)


def is_unavailable(error: BaseException) -> bool:
    """Whether this is Postgres being away, busy or out of room, so that the same work may succeed later. A statement
    that took too long is not: it may be the work itself."""
    if isinstance(error, PoolTimeoutError | InterfaceError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "pgcode", None)
    if state is None:  # It is libpq that speaks: no connection, or a lost one.
        return isinstance(error.orig, psycopg2.OperationalError) or bool(error.connection_invalidated)
    passing = state.startswith(_PASSING_CLASSES) or state in _PASSING_STATES
    return passing and state != _STATEMENT_TIMEOUT


def is_too_slow(error: BaseException) -> bool:
    """Whether a statement ran into its time limit."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "pgcode", None) == _STATEMENT_TIMEOUT


def is_bad_value(error: BaseException) -> bool:
    """Whether Postgres cannot hold or compute a value: it would not later, either."""
    state = getattr(error.orig, "pgcode", None) if isinstance(error, DBAPIError) else None
    return (state or "").startswith(_VALUE_CLASSES)


def reason(error: BaseException) -> str:
    """The cause in few words for a log: no message of the server, which may quote what was stored."""
    original = getattr(error, "orig", None) or error
    state = getattr(original, "pgcode", None)
    return f"{type(original).__name__} {state}" if state else type(original).__name__


def explain(error: BaseException) -> str:
    """What the server refused, for whoever mends it: names of its own things, and nothing that was to be stored."""
    diagnosis = getattr(getattr(error, "orig", None), "diag", None)
    if diagnosis is None:
        return reason(error)
    names = (("table", diagnosis.table_name), ("column", diagnosis.column_name), ("by", diagnosis.constraint_name))
    speaks_of_itself = (diagnosis.sqlstate or "").startswith(_DISCREET_CLASSES)
    parts = [diagnosis.message_primary if speaks_of_itself else "", *(f"{word} {name}" for word, name in names if name)]
    return ", ".join([reason(error), *filter(None, parts)])


def unavailable() -> Unavailable:
    """What a sender is told while Postgres is away."""
    return Unavailable("The database does not answer at the moment. Nothing is lost; try again in some seconds.")
