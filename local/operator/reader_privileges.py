"""Grants the read-only role its privileges, and checks it for excess ones."""

from __future__ import annotations

from typing import Any

from psycopg2 import sql

from models.tables import METADATA

UNSEEN: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("sessions", "conversation_chunks", "memories", "memory_revisions", "events"), ()),
    **dict.fromkeys(("artifacts", "artifact_revisions", "passages"), ()),
    "tasks": ("claim_token",),
    "agents": ("command",),
}
"""The readable tables, each with its hidden columns. Tables that are not listed are hidden."""
WRITERS = ("lo_creat", "lo_create", "lo_from_bytea", "pg_logical_emit_message")
"""Functions by which every role can write to every database. session-relay does not use them."""


def grant_reading(cursor: Any, role: str) -> None:
    """Grant SELECT on the readable tables and columns."""
    for name, unseen in UNSEEN.items():
        columns = [column.name for column in METADATA.tables[name].columns if column.name not in unseen]
        listed = sql.SQL(" ({})").format(sql.SQL(", ").join(map(sql.Identifier, columns))) if unseen else sql.SQL("")
        statement = sql.SQL("GRANT SELECT{} ON public.{} TO {}")
        cursor.execute(statement.format(listed, sql.Identifier(name), sql.Identifier(role)))


def revoke_public(cursor: Any, role: str) -> None:
    """Revoke from PUBLIC the privileges by which every role could write, keeping them for the owners of the tables.
    Privileges that the current user cannot revoke stay."""
    cursor.execute(
        "SELECT current_user UNION SELECT tableowner FROM pg_tables"
        " WHERE schemaname = 'public' AND tablename = ANY (%s)",
        (list(UNSEEN),),
    )
    owners = sql.SQL(", ").join(sql.Identifier(name) for (name,) in cursor.fetchall())
    database = sql.Identifier(cursor.connection.info.dbname)
    for privilege, place, may in (
        ("TEMPORARY", sql.SQL("DATABASE {}").format(database), "has_database_privilege(%s, current_database(), %s)"),
        ("CREATE", sql.SQL("SCHEMA public"), "has_schema_privilege(%s, 'public', %s)"),
    ):
        cursor.execute(f"SELECT {may}", (role, privilege))
        if cursor.fetchone()[0]:
            cursor.execute(sql.SQL(f"GRANT {privilege} ON {{}} TO {{}}").format(place, owners))
            cursor.execute(sql.SQL(f"REVOKE {privilege} ON {{}} FROM PUBLIC").format(place))
    if is_superuser(cursor):
        for function in _writers(cursor, role):
            cursor.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")


def excess(cursor: Any, role: str) -> list[str]:
    """List the role's privileges on tables and schemas beyond those granted."""
    hidden = [name for name in METADATA.tables if name not in UNSEEN]
    columns = [(table, column) for table, unseen in UNSEEN.items() for column in unseen]
    cursor.execute(
        """
        SELECT 'write ' || oid::regclass FROM pg_class
        WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND has_schema_privilege(%(role)s, relnamespace, 'USAGE')
          AND (has_table_privilege(%(role)s, oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
               OR has_any_column_privilege(%(role)s, oid, 'INSERT, UPDATE, REFERENCES'))
          AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
        UNION ALL
        SELECT 'read ' || name FROM unnest(%(hidden)s) AS name
        WHERE has_any_column_privilege(%(role)s, 'public.' || name, 'SELECT')
        UNION ALL
        SELECT 'read ' || name || '.' || part FROM unnest(%(tables)s, %(columns)s) AS unseen (name, part)
        WHERE has_column_privilege(%(role)s, 'public.' || name, part, 'SELECT')
        UNION ALL
        SELECT 'create in schema ' || nspname FROM pg_namespace WHERE has_schema_privilege(%(role)s, oid, 'CREATE')
        UNION ALL
        SELECT 'create schemas or temporary tables'
        WHERE has_database_privilege(%(role)s, current_database(), 'CREATE, TEMPORARY')
        """,
        {
            "role": role,
            "hidden": hidden,
            "tables": [table for table, _ in columns],
            "columns": [column for _, column in columns],
        },
    )
    return [privilege for (privilege,) in cursor]


def remains(cursor: Any, role: str) -> list[str]:
    """Describe what the role can do through functions that every role may call."""
    warnings = []
    if writers := _writers(cursor, role):
        names = ", ".join(sorted({name.partition("(")[0].removeprefix("pg_catalog.") for name in writers}))
        warnings.append(f"The role can fill the disk with {names}; only a superuser can revoke these functions.")
    cursor.execute(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE prosecdef AND has_function_privilege(%s, oid, 'EXECUTE')"
        " AND has_schema_privilege(%s, pronamespace, 'USAGE') ORDER BY 1",
        (role, role),
    )
    if functions := ", ".join(name for (name,) in cursor):
        warnings.append(f"The role can call functions that run with their owners' privileges: {functions}.")
    return warnings


def is_superuser(cursor: Any) -> bool:
    """True if the current user is a superuser."""
    cursor.execute("SELECT current_setting('is_superuser') = 'on'")
    return bool(cursor.fetchone()[0])


def _writers(cursor: Any, role: str) -> list[str]:
    cursor.execute(
        "SELECT 'pg_catalog.' || oid::regprocedure FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace"
        " AND proname = ANY (%s) AND has_function_privilege(%s, oid, 'EXECUTE')",
        (list(WRITERS), role),
    )
    return [name for (name,) in cursor]
