"""Backups of a database: made by pg_dump, read to their end before they count, and what is in them.

Restoring one is in restoring.py.
"""

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

LOCK_WAIT = "10s"
"""Of pg_dump for a migration that is under way."""
COPY = re.compile(rb"COPY (?:public\.)?(\w+) \((.*)\) FROM stdin;\n")
END_OF_COPY = b"\\.\n"
Advance = Callable[[], None]


class Backup(NamedTuple):
    """What is in a file that can be restored."""

    tables: int
    held: StoreSummary


def make_backup(database: TargetDatabase, path: Path, *, advance: Advance) -> Backup:
    """Write a backup and read it to its end. Raises Unavailable, ToolError, OSError."""
    with database.connect("cli") as connection:
        tools = tools_for(connection.server_version)
    with replacing(path, mode=PRIVATE) as draft:
        _dump(database, tools, draft.name, advance=advance)
        return read_backup(Path(draft.name), tools)


def count_tables(database: TargetDatabase) -> int:
    """How many tables a backup will have."""
    with database.connect("cli") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')")
        return int(cursor.fetchone()[0])


def read_backup(path: Path, tools: Tools) -> Backup:
    """Read a backup to its end, as a restore would. Raises ToolError if it cannot be, or is none of ours."""
    tables, held = 0, StoreSummary()
    field: int | None = None
    for line in script_of(path, tools):
        if field is not None:
            if line == END_OF_COPY:
                field = None
            else:
                active_at = line.rstrip(b"\n").split(b"\t")[field].decode()
                held = held.with_session(datetime.fromisoformat(active_at))
        elif line.startswith(b"COPY ") and (begun := COPY.fullmatch(line)):
            tables += 1
            if begun[1] == b"sessions":
                field = begun[2].decode().split(", ").index("last_activity_at")
    if not tables:
        raise ToolError(f"{path} is no backup of a session-relay: there are no tables in it.")
    return Backup(tables, held)


def script_of(path: Path, tools: Tools) -> Iterator[bytes]:
    """A backup as the script for psql, line by line. Raises ToolError at the end unless it was the whole of it."""
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
    """What the database has now."""
    with connection.cursor() as cursor:
        try:
            cursor.execute("SELECT count(*), max(last_activity_at) FROM sessions")
        except psycopg2.errors.UndefinedTable:
            return StoreSummary()
        return StoreSummary(*cursor.fetchone())


def _dump(database: TargetDatabase, tools: Tools, path: str, *, advance: Advance) -> None:
    """Run pg_dump, which tells of each table that it comes to."""
    command = [tools.path("pg_dump"), "--format=custom", "--verbose", f"--lock-wait-timeout={LOCK_WAIT}"]
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
