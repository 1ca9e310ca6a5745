"""Makes backups of a database with pg_dump, verifies them, and summarizes their contents. restore.py restores them."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import psycopg2

from local.operator.postgres_tools import Connection, TargetDatabase, ToolError, Tools, reap, tools_for
from models.atomic_files import PRIVATE, replacing
from sessions.documents.store_summary import StoreSummary
from sessions.postgres.embeddings.vector_table import TABLE as VECTORS

LOCK_WAIT = "10s"
"""The time that pg_dump waits for a running migration."""
COPY = re.compile(rb"COPY (?:public\.)?(\w+) \((.*)\) FROM stdin;\n")
END_OF_COPY = b"\\.\n"
Advance = Callable[[], None]


class Backup(NamedTuple):
    """The contents of a valid backup file."""

    tables: int
    held: StoreSummary


def make_backup(database: TargetDatabase, path: Path, *, advance: Advance) -> Backup:
    """Write a backup, and verify it by reading all of it. Raises Unavailable, ToolError, OSError."""
    with database.connect("cli") as connection:
        tools = tools_for(connection.server_version)
    with replacing(path, mode=PRIVATE) as draft:
        _dump(database, tools, draft.name, advance=advance)
        return read_backup(Path(draft.name), tools)


def count_tables(database: TargetDatabase) -> int:
    """Count the tables that a backup will contain."""
    with database.connect("cli") as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND tablename <> %s",
            (VECTORS,),
        )
        return int(cursor.fetchone()[0])


def read_backup(path: Path, tools: Tools) -> Backup:
    """Read all of a backup, as a restore would. Raises ToolError if it is unreadable or not a backup of
    session-relay."""
    tables, held = 0, StoreSummary()
    field: int | None = None
    for line in script_of(path, tools):
        if field is not None:
            if line == END_OF_COPY:
                field = None
            else:
                active_at = line.rstrip(b"\n").split(b"\t")[field].decode()
                held = held.with_session(datetime.fromisoformat(active_at))
        elif line.startswith(b"COPY ") and (match := COPY.fullmatch(line)):
            tables += 1
            if match[1] == b"sessions":
                field = match[2].decode().split(", ").index("last_activity_at")
    if not tables:
        raise ToolError(f"{path} is not a backup of session-relay: it contains no tables.")
    return Backup(tables, held)


def script_of(path: Path, tools: Tools) -> Iterator[bytes]:
    """Yield a backup as a script for psql, line by line. Raises ToolError at the end if the backup is incomplete."""
    command = [tools.path("pg_restore"), "--no-owner", "--no-privileges", "--file=-", str(path)]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as process,  # noqa: S603
    ):
        assert process.stdout is not None
        try:
            yield from process.stdout
            reap(process, errors)
        finally:
            process.kill()


def held_by(connection: Connection) -> StoreSummary:
    """Summarize the current contents of the database."""
    with connection.cursor() as cursor:
        try:
            cursor.execute("SELECT count(*), max(last_activity_at) FROM sessions")
        except psycopg2.errors.UndefinedTable:
            return StoreSummary()
        return StoreSummary(*cursor.fetchone())


def _dump(database: TargetDatabase, tools: Tools, path: str, *, advance: Advance) -> None:
    """Run pg_dump, which reports each table, for progress."""
    command = [tools.path("pg_dump"), "--format=custom", "--verbose", f"--lock-wait-timeout={LOCK_WAIT}"]
    command.append(f"--exclude-table={VECTORS}")  # They are large, and computed anew from the texts.
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(  # noqa: S603
            [*command, f"--file={path}", f"--dbname={database.dsn}"],
            env=database.environment("backup"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        assert process.stderr is not None
        try:
            for line in process.stderr:
                errors.write(line)
                if b": dumping contents of table" in line:
                    advance()
            reap(process, errors)
        finally:
            process.kill()
