"""Creates and drops a read-only role, for programs that run untrusted SQL.

Its privileges, in reader_privileges.py, prevent writes. Its settings do not: a role may change them.
"""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import psycopg2
from psycopg2 import sql
from psycopg2.extensions import encrypt_password, parse_dsn

from local.operator.migrations import read_revision
from local.operator.postgres_tools import Connection, TargetDatabase
from local.operator.reader_privileges import UNSEEN, excess, grant_reading, is_superuser, remains, revoke_public
from models.errors import Conflict, Forbidden, Unavailable
from sessions.postgres.operations.schema_revision import state_of

ROLE = "session_relay_reader"
MARK = "May read the sessions of session-relay. Made by `session-cli db reader`."
"""The comment that identifies roles created here."""
CONNECTIONS = 5
SETTINGS = {
    "default_transaction_read_only": "on",
    "statement_timeout": "30s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "10s",
}
"""Guards against accidents; a client can override them."""
SUPERUSER_SETTINGS = {"temp_file_limit": "1GB"}
"""Settings that only a superuser can change, so that the role cannot override them."""
URL_PARTS = ("host", "port", "sslmode", "sslrootcert", "channel_binding")
"""Connection parameters that the role's URL keeps."""


class ReaderRole(msgspec.Struct, frozen=True, kw_only=True):
    """A role with its new password."""

    role: str
    database: str
    url: str
    socket: str | None
    """The folder of the server's socket, if the URL uses one."""
    tables: list[str]
    remains: list[str]
    """Warnings about privileges beyond reading; empty if a superuser created the role."""

    def __repr__(self) -> str:
        return f"Reader({self.role!r}, {self.database!r})"


def make_reader(database: TargetDatabase, *, role: str = ROLE) -> ReaderRole:
    """Create the role, or reset the existing one's password and privileges and disconnect its clients. Verifies the
    login before it returns. Raises Conflict if the role was not created here or could do more than read; Forbidden
    without the right to create roles; Unavailable."""
    password = secrets.token_urlsafe(24)
    with database.connect("cli") as connection:
        connection.autocommit = False
        try:
            if (state := state_of(read_revision(database))) != "current":
                hint = "Run `session-cli db upgrade`."
                raise Conflict(f"The database schema is not up to date: {state}.", hint=hint)
            with connection, connection.cursor() as cursor:
                if not _exists(cursor, role):
                    _run(cursor, "CREATE ROLE {role} NOLOGIN NOINHERIT", role=role)
                    _run(cursor, "COMMENT ON ROLE {role} IS {}", MARK, role=role)
                hidden = encrypt_password(password, role, scope=connection, algorithm="scram-sha-256")
                limit = f"CONNECTION LIMIT {CONNECTIONS}"
                _run(cursor, f"ALTER ROLE {{role}} LOGIN {limit} PASSWORD {{}}", hidden, role=role)
                _set(cursor, role)
                _revoke(cursor, role)
                _grant(cursor, role)
                revoke_public(cursor, role)
                if beyond := excess(cursor, role):
                    raise Conflict(
                        f"The role {role} would have more than read access: {'; '.join(beyond)}. Nothing was changed.",
                        hint="Run this as the owner of the database, or revoke these privileges from PUBLIC.",
                    )
                warnings = remains(cursor, role)
        except psycopg2.errors.InsufficientPrivilege as error:
            raise _not_allowed(error) from error
        warnings += _disconnect(connection, role)
    url = _url_of(database, role, password)
    _verify_login(url)
    host = parse_dsn(url).get("host", "")
    return ReaderRole(
        role=role,
        database=database.name,
        url=url,
        socket=host if host.startswith("/") else None,
        tables=sorted(UNSEEN),
        remains=warnings,
    )


def drop_reader(database: TargetDatabase, *, role: str = ROLE) -> bool:
    """Disconnect and drop the role. Returns False if it does not exist. Safe to repeat. Raises Conflict if the role was
    not created here, or has privileges in another database, from which it has to be dropped first; Forbidden;
    Unavailable."""
    with database.connect("cli") as connection:
        connection.autocommit = False
        try:
            with connection, connection.cursor() as cursor:
                if not _exists(cursor, role):
                    return False
                _run(cursor, "ALTER ROLE {role} NOLOGIN", role=role)
            _disconnect(connection, role)
            with connection, connection.cursor() as cursor:
                _revoke(cursor, role)
            with connection, connection.cursor() as cursor:
                _run(cursor, "DROP ROLE {role}", role=role)
        except psycopg2.errors.InsufficientPrivilege as error:
            raise _not_allowed(error) from error
        except psycopg2.errors.DependentObjectsStillExist as error:
            detail = error.diag.message_detail or ""
            hint = "Run this for the other databases too; the last run drops the role."
            raise Conflict(
                f"{role} can no longer log in, but has privileges elsewhere: {detail}.", hint=hint
            ) from error
    return True


def _exists(cursor: Any, role: str) -> bool:
    """Return True if the role exists. Raises Conflict if it was not created here, or was given more privileges."""
    cursor.execute(
        "SELECT shobj_description(oid, 'pg_authid'),"
        " rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls,"
        " ARRAY(SELECT roleid::regrole::text FROM pg_auth_members WHERE member = pg_roles.oid)"
        " FROM pg_roles WHERE rolname = %s",
        (role,),
    )
    if (found := cursor.fetchone()) is None:
        return False
    comment, is_powerful, memberships = found
    if comment != MARK:
        raise Conflict(f"The role {role} was not created by this command.", hint="Choose another --role.")
    if is_powerful or memberships:
        excess = f"is a member of {', '.join(memberships)}" if memberships else "has administrator attributes"
        raise Conflict(f"The role {role} {excess}.", hint="Drop it, or choose another --role.")
    return True


def _set(cursor: Any, role: str) -> None:
    """Reset the role's settings, including those that it may have set itself."""
    _run(cursor, "ALTER ROLE {role} RESET ALL", role=role)
    _run(cursor, "ALTER ROLE {role} IN DATABASE {database} RESET ALL", role=role)
    for name, value in (SETTINGS | (SUPERUSER_SETTINGS if is_superuser(cursor) else {})).items():
        _run(cursor, f"ALTER ROLE {{role}} SET {name} = {{}}", value, role=role)


def _revoke(cursor: Any, role: str) -> None:
    for kind in ("TABLES", "SEQUENCES", "ROUTINES"):
        _run(cursor, f"REVOKE ALL ON ALL {kind} IN SCHEMA public FROM {{role}}", role=role)
    _run(cursor, "REVOKE ALL ON SCHEMA public FROM {role}", role=role)
    _run(cursor, "REVOKE ALL ON DATABASE {database} FROM {role}", role=role)


def _grant(cursor: Any, role: str) -> None:
    _run(cursor, "GRANT CONNECT ON DATABASE {database} TO {role}", role=role)
    _run(cursor, "GRANT USAGE ON SCHEMA public TO {role}", role=role)
    grant_reading(cursor, role)


def _disconnect(connection: Connection, role: str) -> list[str]:
    """Disconnect the role's clients. Returns a warning if the current user is not allowed to."""
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (role,))
    except psycopg2.errors.InsufficientPrivilege:
        return ["Clients connected with an earlier password stay connected; only a superuser can disconnect them."]
    return []


def _url_of(database: TargetDatabase, role: str, password: str) -> str:
    parts = parse_dsn(database.dsn)
    host, port = parts.pop("host", ""), parts.pop("port", "")
    kept = {name: parts[name] for name in URL_PARTS if name in parts}
    if not host or host.startswith("/") or "," in host:
        kept |= {name: value for name, value in (("host", host), ("port", port)) if value}
        place = ""
    else:
        place = f"[{host}]" if ":" in host else host
        place += f":{port}" if port else ""
    query = f"?{urlencode(kept, safe='/')}" if kept else ""
    return f"postgresql://{quote(role, safe='')}:{password}@{place}/{quote(database.name, safe='')}{query}"


def _verify_login(url: str) -> None:
    """Log in as the role, and read. Raises Unavailable if that fails."""
    database = TargetDatabase(url)
    try:
        with database.connect("cli") as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM sessions")
    except (Unavailable, psycopg2.Error) as error:
        raise Unavailable(f"The role was created, but cannot log in: {str(error).strip()}") from error


def _not_allowed(error: psycopg2.Error) -> Forbidden:
    reason = error.diag.message_primary or "permission denied"
    return Forbidden(
        f"Postgres denied this: {reason}. Nothing was changed.",
        hint="Run this as a role that may create roles and owns the database.",
    )


def _run(cursor: Any, statement: str, *values: str, role: str) -> None:
    """Execute a statement, inserting names and values safely."""
    names = {"role": sql.Identifier(role), "database": sql.Identifier(cursor.connection.info.dbname)}
    cursor.execute(sql.SQL(statement).format(*map(sql.Literal, values), **names))
