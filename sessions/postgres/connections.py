"""Connections to Postgres: timeouts that the server enforces, and classification of errors."""

from __future__ import annotations

import math
import re
import time
from functools import partial
from typing import Any

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_INERROR, parse_dsn
from sqlalchemy import Connection, Engine, event
from sqlalchemy import create_engine as create_sqlalchemy_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from models.errors import SettingsError, Unavailable
from models.settings import Settings, sqlalchemy_url
from sessions.embeddings.configured import configured_encoder

ENCODER = "session_relay_encoder"
"""The execution option with the Encoder of searches, or None."""
QUESTION_SECONDS = "session_relay_question_seconds"
"""The execution option with the longest time that the vector of a question may take."""
STATEMENT_TIMEOUT_SECONDS = 10
LOCK_TIMEOUT_SECONDS = 5
IDLE_IN_TRANSACTION_TIMEOUT_SECONDS = 10
"""The longest that a worker suspended within a transaction can hold its locks."""
CONNECT_TIMEOUT_SECONDS = 3
TCP_USER_TIMEOUT_SECONDS = 10
KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 2}
"""Seconds, and number of probes. Without them a client could wait for the response of a dead host forever."""
POOL_TIMEOUT_SECONDS = 5
PING_AFTER_SECONDS = 0.2
"""A connection that was idle for longer is checked before it is used; Postgres takes longer for a restart."""
EXPECTED_URL = "expected postgresql://user:password@host:port/database"
UNKNOWN_PARAMETER = re.compile(r'parameter: "([A-Za-z_]{1,64})"')

CAUSE_LENGTH = 300
"""Characters of libpq's message that are logged."""
ADVICE = (
    ("password authentication failed", "Correct the user and the password in DATABASE_URL."),
    ("no password supplied", "Add the password to DATABASE_URL."),
    ("unsupported startup parameter", "Remove `options` from DATABASE_URL: the pooler does not support it."),
    ('database "', "Create the database, or correct its name in DATABASE_URL."),
    ('role "', "Create the role, or correct the user in DATABASE_URL."),
    ("pg_hba.conf", "Allow this host and user in the server's pg_hba.conf, or require TLS with sslmode=require."),
    ("could not translate host name", "Correct the host in DATABASE_URL."),
    ("SSL", "Correct sslmode in DATABASE_URL, or enable TLS in the server."),
    ("too many c", "Raise max_connections, or run fewer processes."),
    ("remaining connection slots", "Raise max_connections, or run fewer processes."),
    ("starting up", "Wait until the server has finished its recovery."),
)
"""Advice by parts of libpq's message."""
ADVICE_ELSE = "Start Postgres, or correct the host and port in DATABASE_URL."

_TRANSIENT_CLASSES = ("08", "40", "53", "57")
"""SQLSTATE classes: connection, rollback (deadlock), no resources, operator intervention (shutdown, timeout)."""
_TRANSIENT_STATES = ("25P03", "25P04", "55006", "55P03")
"""Idle in transaction, transaction timeout, object in use, lock not available."""
_VALUE_CLASSES = ("22", "54")
"""SQLSTATE classes: data exception, program limit exceeded."""
_STATEMENT_TIMEOUT = "57014"
_DISCREET_CLASSES = ("23", "42", "53", "54", "55", "57", "XX")
"""SQLSTATE classes whose message names only schema objects. Data exceptions (22) quote the value, and triggers (P0) can
raise any text."""


def create_engine(settings: Settings, *, application_name: str, pool_size: int) -> Engine:
    """Create an engine with a bounded pool. It connects on first use. Raises SettingsError without DATABASE_URL."""
    engine = create_sqlalchemy_engine(
        check_database_url(settings.database_url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        hide_parameters=True,
        execution_options={ENCODER: configured_encoder(settings)},
        connect_args={
            "application_name": application_name,
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "tcp_user_timeout": TCP_USER_TIMEOUT_SECONDS * 1000,
            **KEEPALIVES,
        },
    )
    # Set in each transaction, in one round trip: poolers reject or drop startup options, and pass session settings on
    # to their next client.
    limits = (
        f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_SECONDS}s';"
        f" SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s';"
        f" SET LOCAL idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_TIMEOUT_SECONDS}s';"
        " SET LOCAL timezone = 'UTC'"
    )
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(limits))
    event.listen(engine, "commit", _refuse_aborted)
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", partial(_ping_if_idle, engine))
    return engine


def _note_use(raw: Any, record: Any) -> None:
    record.info["used_at"] = time.monotonic()


def _ping_if_idle(engine: Engine, raw: Any, record: Any, _: Any) -> None:
    """Replace a connection that Postgres has closed meanwhile."""
    if time.monotonic() - record.info.get("used_at", math.inf) < PING_AFTER_SECONDS:
        return
    try:
        engine.dialect.do_ping(raw)
    except psycopg2.Error as error:
        raise InvalidatePoolError from error


def _refuse_aborted(connection: Connection) -> None:
    """Roll back and raise InternalError if a statement has failed. Postgres would answer COMMIT with ROLLBACK, which
    psycopg2 does not report: the writes would count as stored."""
    raw = connection.connection.dbapi_connection
    if isinstance(raw, psycopg2.extensions.connection) and raw.info.transaction_status == TRANSACTION_STATUS_INERROR:
        try:
            connection.exec_driver_sql("SELECT 1")
        finally:
            raw.rollback()  # SQLAlchemy leaves that out after a commit that raised.


def check_database_url(database_url: str) -> str:
    """Convert DATABASE_URL for SQLAlchemy. Raises SettingsError if libpq cannot parse it."""
    if not database_url:
        raise SettingsError(f"DATABASE_URL is not set: {EXPECTED_URL}.")
    url = sqlalchemy_url(database_url)
    try:
        parse_dsn(url.replace("postgresql+psycopg2", "postgresql", 1))
        make_url(url)
    except (psycopg2.ProgrammingError, ArgumentError, ValueError) as error:
        # libpq's message may quote a part of the password; only the name of a parameter is safe to show.
        unknown = UNKNOWN_PARAMETER.search(str(error))
        detail = f" Postgres does not know its parameter {unknown[1]}." if unknown else ""
        raise SettingsError(
            f"DATABASE_URL is not valid: {EXPECTED_URL}, with / ? # @ : in the password written as %2F %3F %23 %40 "
            f"%3A.{detail}"
        ) from error
    return url


def is_unavailable(error: BaseException) -> bool:
    """Return whether Postgres is unreachable, busy or out of space, so that a retry may succeed. Excludes statement
    timeouts, which the work itself may cause."""
    if isinstance(error, PoolTimeoutError | InterfaceError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "pgcode", None)
    if state is None:  # An error of libpq: no connection, or a lost one.
        return isinstance(error.orig, psycopg2.OperationalError) or bool(error.connection_invalidated)
    is_transient = state.startswith(_TRANSIENT_CLASSES) or state in _TRANSIENT_STATES
    return is_transient and state != _STATEMENT_TIMEOUT


def is_too_slow(error: BaseException) -> bool:
    """Return whether a statement exceeded its timeout."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "pgcode", None) == _STATEMENT_TIMEOUT


def is_bad_value(error: BaseException) -> bool:
    """Return whether Postgres cannot store or compute a value, now or later."""
    state = getattr(error.orig, "pgcode", None) if isinstance(error, DBAPIError) else None
    return (state or "").startswith(_VALUE_CLASSES)


def reason(error: BaseException) -> str:
    """Return a short cause for logs, without the server's message, which may quote stored data."""
    original = getattr(error, "orig", None) or error
    state = getattr(original, "pgcode", None)
    return f"{type(original).__name__} {state}" if state else type(original).__name__


def diagnose(error: BaseException) -> str:
    """Describe why Postgres cannot be used, with libpq's message and advice. Quotes no stored data: of a failed
    statement it names only the SQLSTATE."""
    original = getattr(error, "orig", None) or error
    if getattr(original, "pgcode", None) is not None or not isinstance(original, psycopg2.Error):
        return f"Postgres rejected a statement ({reason(error)})."
    message = str(original).strip().partition("\n")[0][:CAUSE_LENGTH]
    advice = next((advice for part, advice in ADVICE if part in message), ADVICE_ELSE)
    return f"Postgres cannot be used: {message}. {advice}"


def explain(error: BaseException) -> str:
    """Describe the server's error for developers: with the names of schema objects, but without data."""
    diagnosis = getattr(getattr(error, "orig", None), "diag", None)
    if diagnosis is None:
        return reason(error)
    names = (("table", diagnosis.table_name), ("column", diagnosis.column_name), ("by", diagnosis.constraint_name))
    is_discreet = (diagnosis.sqlstate or "").startswith(_DISCREET_CLASSES)
    parts = [diagnosis.message_primary if is_discreet else "", *(f"{word} {name}" for word, name in names if name)]
    return ", ".join([reason(error), *filter(None, parts)])


def unavailable() -> Unavailable:
    """Return the error for senders while Postgres is unavailable."""
    return Unavailable("The database is not responding. Nothing is lost; retry in a few seconds.")
