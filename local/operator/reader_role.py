"""A role that may only read, for programs that run the SQL of others: how it is made, and how it goes.

What keeps it from writing are its privileges, in reader_rights.py. Its settings are no walls: a role may change them.
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
"""The comment by which a role is known to be one of ours."""
CONNECTIONS = 5
SETTINGS = {
    "default_transaction_read_only": "on",
    "statement_timeout": "30s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "10s",
}
"""Against accidents: whoever is connected can set them otherwise."""
SUPERUSER_SETTINGS = {"temp_file_limit": "1GB"}
"""Set only by a superuser, and so nothing that the role could change."""
URL_PARTS = ("host", "port", "sslmode", "sslrootcert", "channel_binding")
"""What another role needs, too, to reach the database."""


class ReaderRole(msgspec.Struct, frozen=True, kw_only=True):
    """A role with its new password."""

    role: str
    database: str
    url: str
    socket: str | None
    """The folder of the server's socket, if it is reached by one."""
    tables: list[str]
    remains: list[str]
    """What it can do beyond reading, in sentences; nothing, if a superuser has made it."""

    def __repr__(self) -> str:
        return f"Reader({self.role!r}, {self.database!r})"


def make_reader(database: TargetDatabase, *, role: str = ROLE) -> ReaderRole:
    """Make the role, or give the one that is there a new password and the privileges of this version; who was
    connected with the old password is disconnected. It has been tried before this returns. Raises Conflict if the role
    is somebody else's, or could do more than read; Forbidden without the right to make roles; Unavailable."""
    password = secrets.token_urlsafe(24)
    with database.connect("cli") as connection:
        connection.autocommit = False
        try:
            if (state := state_of(read_revision(database))) != "current":
                hint = "Run `session-cli db upgrade`."
                raise Conflict(f"The tables are not those of this version: {state}.", hint=hint)
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
                        f"The role {role} could do more than read: {'; '.join(beyond)}. Nothing was changed.",
                        hint="Run this as the owner of the database, or take away what PUBLIC has been granted.",
                    )
                told = remains(cursor, role)
        except psycopg2.errors.InsufficientPrivilege as error:
            raise _not_allowed(error) from error
        told += _disconnect(connection, role)
    url = _url_of(database, role, password)
    _try(url)
    host = parse_dsn(url).get("host", "")
    return ReaderRole(
        role=role,
        database=database.name,
        url=url,
        socket=host if host.startswith("/") else None,
        tables=sorted(UNSEEN),
        remains=told,
    )


def drop_reader(database: TargetDatabase, *, role: str = ROLE) -> bool:
    """Disconnect and remove the role; whether there was one. May be repeated. Raises Conflict if it is somebody else's,
    or has rights in another database, too, where this has to be called first; Forbidden; Unavailable."""
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
            hint = "Drop it in the other databases, too: the last time it goes."
            raise Conflict(f"{role} cannot log in any more, but has rights elsewhere: {detail}.", hint=hint) from error
    return True


def _exists(cursor: Any, role: str) -> bool:
    """Whether there is the role, one of ours. Raises Conflict if it is none, or more than we have made of it."""
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
        raise Conflict(f"There is a role {role}, which was not made by this command.", hint="Choose another --role.")
    if is_powerful or memberships:
        told = f"it is a member of {', '.join(memberships)}" if memberships else "it has attributes of an administrator"
        raise Conflict(f"Somebody has made more of the role {role}: {told}.", hint="Drop it, or choose another --role.")
    return True


def _set(cursor: Any, role: str) -> None:
    """Its settings, and none that it may have set for itself."""
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
    """End the connections of the role; a sentence if that is not allowed."""
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (role,))
    except psycopg2.errors.InsufficientPrivilege:
        return ["Who is connected with an earlier password stays connected: only a superuser may end that."]
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


def _try(url: str) -> None:
    """Log in as the role, and read. Raises Unavailable if it cannot."""
    database = TargetDatabase(url)
    try:
        with database.connect("cli") as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM sessions")
    except (Unavailable, psycopg2.Error) as error:
        raise Unavailable(f"The role was made, but cannot be used: {str(error).strip()}") from error


def _not_allowed(error: psycopg2.Error) -> Forbidden:
    told = error.diag.message_primary or "permission denied"
    return Forbidden(
        f"Postgres does not allow it: {told}. Nothing was changed.",
        hint="Run this as a role that may make roles, and owns the database.",
    )


def _run(cursor: Any, statement: str, *values: str, role: str) -> None:
    """Execute a statement with names in it."""
    names = {"role": sql.Identifier(role), "database": sql.Identifier(cursor.connection.info.dbname)}
    cursor.execute(sql.SQL(statement).format(*map(sql.Literal, values), **names))
