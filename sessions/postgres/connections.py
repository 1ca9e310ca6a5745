"""Connections to Postgres: time limits that the server keeps, and which failures mean that it is away."""

from __future__ import annotations

import re

import psycopg2
from psycopg2.extensions import parse_dsn
from sqlalchemy import Engine, event
from sqlalchemy import create_engine as create_sqlalchemy_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError
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
EXPECTED_URL = "expected postgresql://user:password@host:port/database"
UNKNOWN_PARAMETER = re.compile(r'parameter: "([A-Za-z_]{1,64})"')

CAUSE_LENGTH = 300
"""Characters of the library's words that are logged."""
ADVICE = (
    ("password authentication failed", "Correct the user and the password in DATABASE_URL."),
    ("no password supplied", "Put the password into DATABASE_URL."),
    ("unsupported startup parameter", "Leave `options` out of DATABASE_URL: the pooler does not take it."),
    ('database "', "Create the database, or correct its name in DATABASE_URL."),
    ('role "', "Create the role, or correct the user in DATABASE_URL."),
    ("pg_hba.conf", "Allow this host and user in the server's pg_hba.conf, or require TLS with sslmode=require."),
    ("could not translate host name", "Correct the host in DATABASE_URL."),
    ("SSL", "Correct sslmode in DATABASE_URL, or turn on TLS in the server."),
    ("too many c", "Raise max_connections, or run fewer processes."),
    ("remaining connection slots", "Raise max_connections, or run fewer processes."),
    ("starting up", "Wait; it answers when its recovery is done."),
)
"""What to do, by words of the library."""
ADVICE_ELSE = "Start Postgres, or correct host and port in DATABASE_URL."

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
    engine = create_sqlalchemy_engine(
        check_database_url(settings.database_url),
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
    # In each transaction anew, in one round trip: a pooler refuses or drops startup options, and hands what was set for
    # a session to its next client.
    limits = (
        f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_SECONDS}s';"
        f" SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s';"
        f" SET LOCAL idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_TIMEOUT_SECONDS}s';"
        " SET LOCAL timezone = 'UTC'"
    )
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(limits))
    return engine


def check_database_url(database_url: str) -> str:
    """Give a DATABASE_URL in the form that SQLAlchemy takes. Raises SettingsError for one that libpq does not read."""
    if not database_url:
        raise SettingsError(f"DATABASE_URL is not set: {EXPECTED_URL}.")
    url = sqlalchemy_url(database_url)
    try:
        parse_dsn(url.replace("postgresql+psycopg2", "postgresql", 1))
        make_url(url)
    except (psycopg2.ProgrammingError, ArgumentError, ValueError) as error:
        # What the library says may show a part of the password, but for the name of a parameter.
        unknown = UNKNOWN_PARAMETER.search(str(error))
        detail = f" It has a parameter that Postgres does not know: {unknown[1]}." if unknown else ""
        raise SettingsError(
            f"DATABASE_URL is not valid: {EXPECTED_URL}, with / ? # @ : in the password written as %2F %3F %23 %40 "
            f"%3A.{detail}"
        ) from error
    return url


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


def diagnose(error: BaseException) -> str:
    """Say why Postgres cannot be used, in the words of its library, and what to do about it. Quotes nothing that was
    stored: of a statement that failed it names the state alone."""
    original = getattr(error, "orig", None) or error
    if getattr(original, "pgcode", None) is not None or not isinstance(original, psycopg2.Error):
        return f"Postgres does not do what it is asked ({reason(error)})."
    words = str(original).strip().partition("\n")[0][:CAUSE_LENGTH]
    advice = next((advice for part, advice in ADVICE if part in words), ADVICE_ELSE)
    return f"Postgres cannot be used: {words}. {advice}"


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
