"""What a role that may only read is allowed to see, and what it could do beyond that."""

from __future__ import annotations

from typing import Any

from psycopg2 import sql

from models.tables import Base

UNSEEN: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("sessions", "conversation_chunks", "memories", "memory_revisions", "artifacts", "events"), ()),
    "tasks": ("claim_token",),
    "agents": ("command",),
}
"""The tables that it may read, each without these columns. A table that is not named here it may not read."""
WRITERS = ("lo_creat", "lo_create", "lo_from_bytea", "pg_logical_emit_message")
"""Functions by which everybody may write something into every database. Nothing of ours uses them."""


def grant_reading(cursor: Any, role: str) -> None:
    """Allow it to read what it should."""
    for name, unseen in UNSEEN.items():
        columns = [column.name for column in Base.metadata.tables[name].columns if column.name not in unseen]
        listed = sql.SQL(" ({})").format(sql.SQL(", ").join(map(sql.Identifier, columns))) if unseen else sql.SQL("")
        statement = sql.SQL("GRANT SELECT{} ON public.{} TO {}")
        cursor.execute(statement.format(listed, sql.Identifier(name), sql.Identifier(role)))


def revoke_public(cursor: Any, role: str) -> None:
    """Take from PUBLIC what lets everybody write something, and leave it to those whose tables these are. What the
    current user may not take away stays."""
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
    """What it could do with tables and schemas beyond reading what it should."""
    hidden = [name for name in Base.metadata.tables if name not in UNSEEN]
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
    return [told for (told,) in cursor]


def remains(cursor: Any, role: str) -> list[str]:
    """What it could do by functions that everybody may call, in sentences."""
    told = []
    if writers := _writers(cursor, role):
        names = ", ".join(sorted({name.partition("(")[0].removeprefix("pg_catalog.") for name in writers}))
        told.append(f"It can fill the disk, by {names}: only a superuser may take these functions away.")
    cursor.execute(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE prosecdef AND has_function_privilege(%s, oid, 'EXECUTE')"
        " AND has_schema_privilege(%s, pronamespace, 'USAGE') ORDER BY 1",
        (role, role),
    )
    if functions := ", ".join(name for (name,) in cursor):
        told.append(f"It can call functions that have the rights of their owners: {functions}.")
    return told


def is_superuser(cursor: Any) -> bool:
    """Whether the current user is one."""
    cursor.execute("SELECT current_setting('is_superuser') = 'on'")
    return bool(cursor.fetchone()[0])


def _writers(cursor: Any, role: str) -> list[str]:
    cursor.execute(
        "SELECT 'pg_catalog.' || oid::regprocedure FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace"
        " AND proname = ANY (%s) AND has_function_privilege(%s, oid, 'EXECUTE')",
        (list(WRITERS), role),
    )
    return [name for (name,) in cursor]
